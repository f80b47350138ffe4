// An error in one line at the top, with actions that help.

import { $, h, say } from "./dom.js";

// actions: [[label, act], ...]; left out it can be closed, empty it goes away by itself.
export function showBanner(text, actions = [["Close", () => {}]]) {
  $("banner-text").textContent = text;
  const buttons = actions.map(([label, act]) =>
    h("button", { type: "button", on: { click: () => (hideBanner(), act()) } }, label));
  $("banner-actions").replaceChildren(...buttons);
  $("banner").hidden = !text;
  say(text);
}

export const hideBanner = () => showBanner("");
