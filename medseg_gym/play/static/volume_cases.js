// Choice of a volume: sources, pages of entries, and own scans, which can be removed.

import { drop } from "./api.js";
import { h } from "./dom.js";
import { Listing } from "./listing.js";

export class VolumeCases extends Listing {
  // onPick({ place, index }); onGone(): the scan that was open has been removed
  constructor(onPick, onGone) {
    super("vol-", 8, onPick);
    this.onGone = onGone;
  }

  entry(one) {
    const parts = one.target
      ? [this.thumbnail(one), this.names(one, `${one.depth} slices · ${one.key}`)]
      : [h("span", { className: "names" }, h("b", {}, one.key))];
    const button = this.button(one, ...parts);
    const own = this.places.find((p) => p.name === this.place)?.own;
    if (!own) return h("li", {}, button);
    const remove = () => this.remove(one.key);
    const label = `Remove ${one.target} (${one.key}) from the service`;
    return h("li", { className: "own" }, button,
      h("button", { type: "button", className: "quiet", "aria-label": label, title: label, on: { click: remove } }, "×"));
  }

  async remove(key) {
    await drop(`volumes/scans/${key}`);
    this.onGone(key);
  }
}
