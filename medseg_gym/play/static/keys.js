// Single-key shortcuts; off where somebody types, with a modifier, or by choice.

import { $, h, remember, remembered } from "./dom.js";

const WORDS = [
  ["Arrows", "in a volume: scroll (PgUp, PgDn: five slices), until Enter has brought the cursor"],
  ["Arrows", "in the image: move the cursor (Shift: one pixel)"],
  ["Enter", "in the image: place the prompt; a box takes two corners; Esc takes back"],
];

export function listen(keys, ready) {
  const box = $("keys-on");
  box.checked = remembered("keys", "on") === "on";
  box.addEventListener("change", () => remember("keys", box.checked ? "on" : "off"));
  const rows = [...WORDS, ...keys.map(([key, words]) => [key === "." ? "." : key.toUpperCase(), words])];
  $("help-keys").replaceChildren(
    ...rows.map(([key, words]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, words))),
  );
  const acts = new Map(keys.map(([key, , act]) => [key, act]));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea");
    const dialog = document.querySelector("dialog[open]");
    if (!box.checked || typing || dialog || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = acts.get(event.key.toLowerCase());
    if (!act || !ready(event.key.toLowerCase())) return;
    event.preventDefault();
    act();
  });
}
