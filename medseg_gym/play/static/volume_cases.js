// Choice of a volume: sources, pages of entries, and own scans, which can be removed.

import { drop, fetchImage, get } from "./api.js";
import { $, h } from "./dom.js";

const PER_PAGE = 8;

export class VolumeCases {
  // onPick({ place, index }); onGone(): the scan that was open has been removed
  constructor(onPick, onGone) {
    this.onPick = onPick;
    this.picks = 0; // how often something was picked: a list that comes late picks nothing more
    this.onGone = onGone;
    this.start = this.size = 0;
    this.picked = null;
    this.urls = [];
    $("vol-place").addEventListener("change", () => this.open($("vol-place").value));
    let waiting;
    $("vol-find").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.turn(0), 250);
    });
    $("vol-back").addEventListener("click", () => this.turn(this.start - PER_PAGE));
    $("vol-on").addEventListener("click", () => this.turn(this.start + PER_PAGE));
  }

  setPlaces(places, chosen) {
    this.places = places;
    $("vol-place").replaceChildren(...places.map((p) => h("option", { value: p.name }, p.title)));
    if (places.some((p) => p.name === chosen)) $("vol-place").value = chosen;
    this.place = $("vol-place").value;
  }

  titleOf(place) {
    return this.places.find((p) => p.name === place)?.title ?? "";
  }

  async open(name) {
    this.place = name;
    $("vol-place").value = name;
    $("vol-find").value = "";
    const picks = this.picks;
    const listed = await this.turn(0);
    if (listed?.length && picks === this.picks) await this.pick({ place: name, index: listed[0].index });
  }

  pick(picked) {
    this.picks += 1;
    return this.onPick(picked);
  }

  async turn(start) {
    this.start = Math.max(0, start);
    const asked = { place: this.place, start: this.start, count: PER_PAGE, find: $("vol-find").value };
    const page = await get("volumes/cases", asked);
    if (asked.place !== this.place || asked.start !== this.start) return null; // an older answer
    if (!asked.find) this.size = page.total;
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [];
    $("vol-list").replaceChildren(...page.cases.map((one) => this.entry(one)));
    const last = this.start + page.cases.length;
    const all = page.total === null ? "many" : page.total.toLocaleString("en");
    $("vol-where").textContent = page.cases.length ? `${this.start + 1}–${last} of ${all}` : "none";
    $("vol-back").disabled = this.start === 0;
    $("vol-on").disabled = page.total !== null && last >= page.total;
    this.mark();
    return page.cases;
  }

  entry(one) {
    if (one.error) {
      const text = h("span", { className: "names" }, h("b", {}, one.key), h("span", { className: "error" }, one.error));
      return h("li", {}, h("div", { className: "case broken" }, text));
    }
    const parts = [];
    if (one.target) {
      const image = h("img", { alt: "", width: 44, height: 44 });
      fetchImage("volumes/thumbnail", { place: this.place, index: one.index }).then((blob) => {
        image.src = URL.createObjectURL(blob);
        this.urls.push(image.src);
      }, () => {});
      const facts = `${one.depth} slices · ${one.key}`;
      parts.push(image, h("span", { className: "names" }, h("b", {}, one.target), h("span", { className: "muted" }, facts)));
    } else parts.push(h("span", { className: "names" }, h("b", {}, one.key)));
    const pick = () => this.pick({ place: this.place, index: one.index });
    const button = h("button", { type: "button", className: "case", "data-index": one.index, on: { click: pick } }, ...parts);
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

  show(picked) {
    this.picked = picked;
    if (picked.place !== this.place) {
      this.place = picked.place;
      $("vol-place").value = picked.place;
      $("vol-find").value = "";
      return this.turn(PER_PAGE * Math.floor(picked.index / PER_PAGE));
    }
    if (!$("vol-find").value && (picked.index < this.start || picked.index >= this.start + PER_PAGE))
      return this.turn(PER_PAGE * Math.floor(picked.index / PER_PAGE));
    return this.mark();
  }

  mark() {
    for (const button of $("vol-list").querySelectorAll("button.case")) {
      const { picked } = this;
      const here = picked && picked.place === this.place && Number(button.dataset.index) === picked.index;
      if (here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  step(by) {
    if (!this.picked || !this.size) return;
    this.pick({ place: this.place, index: (this.picked.index + by + this.size) % this.size });
  }
}
