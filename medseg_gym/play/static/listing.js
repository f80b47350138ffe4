// A list to choose from: sources, pages of entries, and which entry is in play.

import { fetchImage, get } from "./api.js";
import { $, h } from "./dom.js";

// A subclass gives entry(one), the list item of what the service says of one case or volume.
export class Listing {
  // prefix: of the ids; onPick({ place, index }) or onPick({ place, key })
  constructor(prefix, perPage, onPick) {
    Object.assign(this, { perPage, onPick });
    const names = { place: "place", find: "find", back: "page-back", on: "page-on", list: "case-list", where: "page-where" };
    const ids = Object.fromEntries(Object.entries(names).map(([name, id]) => [name, prefix + id]));
    this.ids = ids;
    this.picks = 0; // how often something was picked: a list that comes late picks nothing more
    this.start = this.size = 0;
    this.urls = [];
    this.picked = null;
    $(ids.place).addEventListener("change", () => this.open($(ids.place).value));
    let waiting;
    $(ids.find).addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.turn(0), 250);
    });
    $(ids.back).addEventListener("click", () => this.turn(this.start - perPage));
    $(ids.on).addEventListener("click", () => this.turn(this.start + perPage));
  }

  setPlaces(places, chosen) {
    this.places = places;
    const place = $(this.ids.place);
    place.replaceChildren(...places.map((p) => h("option", { value: p.name }, p.title)));
    if (places.some((p) => p.name === chosen)) place.value = chosen;
    this.place = place.value;
  }

  titleOf(place) {
    return this.places.find((p) => p.name === place)?.title ?? "";
  }

  // Go to a source, and pick its first entry unless something is picked meanwhile.
  async open(name) {
    this.opening = name; // until then a game that begins elsewhere does not turn the list back
    this.go(name);
    const picks = this.picks;
    let listed;
    try {
      listed = await this.turn(0);
    } finally {
      this.opening = null;
    }
    if (listed?.length && picks === this.picks) await this.pick({ place: name, index: listed[0].index });
  }

  go(name) {
    this.place = name;
    $(this.ids.place).value = name;
    $(this.ids.find).value = "";
  }

  pick(picked) {
    this.picks += 1;
    this.opening = null;
    return this.onPick(picked);
  }

  async turn(start) {
    this.start = Math.max(0, start);
    const find = $(this.ids.find).value;
    const asked = { place: this.place, start: this.start, count: this.perPage, find };
    const page = await get("cases", asked);
    if (asked.place !== this.place || asked.start !== this.start) return null; // an older answer
    if (!find) this.size = page.total;
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [];
    $(this.ids.list).replaceChildren(...page.cases.map((one) => this.item(one)));
    const last = this.start + page.cases.length;
    const all = page.total === null ? "many" : page.total.toLocaleString("en");
    $(this.ids.where).textContent = page.cases.length ? `${this.start + 1}–${last} of ${all}` : "none";
    $(this.ids.back).disabled = this.start === 0;
    $(this.ids.on).disabled = page.total !== null && last >= page.total;
    this.mark();
    return page.cases;
  }

  item(one) {
    if (!one.error) return this.entry(one);
    const text = h("span", { className: "names" }, h("b", {}, one.key), h("span", { className: "error" }, one.error));
    return h("li", {}, h("div", { className: "case broken" }, text));
  }

  button(one, ...parts) {
    const pick = () => this.pick({ place: this.place, index: one.index });
    return h("button", { type: "button", className: "case", "data-index": one.index, on: { click: pick } }, ...parts);
  }

  names(one, facts) {
    return h("span", { className: "names" }, h("b", {}, one.target), h("span", { className: "muted" }, facts));
  }

  thumbnail(one) {
    const image = h("img", { alt: "", width: 44, height: 44 });
    fetchImage("thumbnail", { place: this.place, index: one.index }).then((blob) => {
      image.src = URL.createObjectURL(blob);
      this.urls.push(image.src);
    }, () => {});
    return image;
  }

  async show(picked) {
    if (this.opening) return;
    const page = this.perPage * Math.floor(picked.index / this.perPage);
    this.picked = picked;
    if (picked.place !== this.place) {
      this.go(picked.place);
      await this.turn(page);
    } else if (!$(this.ids.find).value && page !== this.start) {
      await this.turn(page);
    } else this.mark();
  }

  mark() {
    for (const button of $(this.ids.list).querySelectorAll("button.case")) {
      const { picked } = this;
      const here = picked && picked.place === this.place && Number(button.dataset.index) === picked.index;
      if (here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  random() {
    if (this.size) this.pick({ place: this.place, index: Math.floor(Math.random() * this.size) });
  }

  step(by) {
    if (!this.picked || !this.size) return;
    this.pick({ place: this.place, index: (this.picked.index + by + this.size) % this.size });
  }
}
