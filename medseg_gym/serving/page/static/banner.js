// What went wrong, in one line at the top, with what can be done about it.

import { $, h, say } from "./dom.js";

export function showBanner(text, actions = []) {
  $("banner-text").textContent = text;
  const buttons = actions.map(([label, act]) =>
    h("button", { type: "button", on: { click: () => (hideBanner(), act()) } }, label));
  if (actions.length || !text) buttons.push();
  else buttons.push(h("button", { type: "button", on: { click: hideBanner } }, "Close"));
  $("banner-actions").replaceChildren(...buttons);
  $("banner").hidden = !text;
  say(text);
}

export const hideBanner = () => showBanner("");
