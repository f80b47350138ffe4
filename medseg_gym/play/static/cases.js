// Choice of a case: sources, pages of thumbnails, a random case, or an uploaded image.

import { form, get, fetchImage } from "./api.js";
import { $, h, say } from "./dom.js";

const PER_PAGE = 12;

export class Cases {
  // onPick({ place, index }) or onPick({ place, key }); onScan(dropped): true if it was a scan
  constructor(onPick, onScan = () => false) {
    this.onPick = onPick;
    this.picks = 0; // how often something was picked: a list that comes late picks nothing more
    this.onScan = onScan;
    this.start = 0;
    this.total = 0;
    this.size = 0;
    this.urls = [];
    this.picked = null;
    $("place").addEventListener("change", () => this.open($("place").value));
    let waiting;
    $("find").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.turn(0), 250);
    });
    $("page-back").addEventListener("click", () => this.turn(this.start - PER_PAGE));
    $("page-on").addEventListener("click", () => this.turn(this.start + PER_PAGE));
    $("random").addEventListener("click", () => this.random());
    this.listenOwn();
  }

  setPlaces(places, chosen) {
    this.places = places;
    $("place").replaceChildren(...places.map((p) => h("option", { value: p.name }, p.title)));
    if (places.some((p) => p.name === chosen)) $("place").value = chosen;
    this.place = $("place").value;
  }

  titleOf(place) {
    return this.places.find((p) => p.name === place)?.title ?? "";
  }

  async open(name) {
    this.opening = name; // until then a game that begins elsewhere does not turn the list back
    this.place = name;
    $("place").value = name;
    $("find").value = "";
    const picks = this.picks;
    try {
      const page = await this.turn(0);
      if (page?.length && picks === this.picks) this.pick({ place: name, index: page[0].index });
    } finally {
      this.opening = null;
    }
  }

  pick(picked) {
    this.picks += 1;
    return this.onPick(picked);
  }

  async turn(start) {
    this.start = Math.max(0, start);
    const find = $("find").value;
    const asked = { place: this.place, start: this.start, count: PER_PAGE, find };
    const page = await get("cases", asked);
    if (asked.place !== this.place || asked.start !== this.start) return null; // an older answer
    this.total = page.total;
    if (!find) this.size = page.total;
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [];
    $("case-list").replaceChildren(...page.cases.map((one) => this.entry(one)));
    const last = this.start + page.cases.length;
    const all = page.total === null ? "many" : page.total.toLocaleString("en");
    $("page-where").textContent = page.cases.length ? `${this.start + 1}–${last} of ${all}` : "none";
    $("page-back").disabled = this.start === 0;
    $("page-on").disabled = page.total !== null && last >= page.total;
    this.mark();
    return page.cases;
  }

  entry(one) {
    if (one.error) {
      const text = h("span", { className: "names" }, h("b", {}, one.key), h("span", { className: "error" }, one.error));
      return h("li", {}, h("div", { className: "case broken" }, text));
    }
    const image = h("img", { alt: "", width: 44, height: 44 });
    fetchImage("thumbnail", { place: this.place, index: one.index }).then((blob) => {
      image.src = URL.createObjectURL(blob);
      this.urls.push(image.src);
    }, () => {});
    const names = h("span", { className: "names" }, h("b", {}, one.target), h("span", { className: "muted" }, one.key));
    const pick = () => this.pick({ place: this.place, index: one.index });
    return h("li", {}, h("button", { type: "button", className: "case", "data-index": one.index, on: { click: pick } }, image, names));
  }

  mark(picked = this.picked) {
    this.picked = picked;
    for (const button of $("case-list").querySelectorAll("button")) {
      const here = picked && picked.place === this.place && Number(button.dataset.index) === picked.index;
      if (here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  async show(picked) {
    if (this.opening) return;
    if (picked.place !== this.place) {
      this.place = picked.place;
      $("place").value = picked.place;
      $("find").value = "";
      await this.turn(PER_PAGE * Math.floor(picked.index / PER_PAGE));
    } else if (!$("find").value && (picked.index < this.start || picked.index >= this.start + PER_PAGE)) {
      await this.turn(PER_PAGE * Math.floor(picked.index / PER_PAGE));
    }
    this.mark(picked);
  }

  step(by) {
    if (!this.picked || !this.size) return;
    const index = (this.picked.index + by + this.size) % this.size;
    this.pick({ place: this.place, index });
  }

  random() {
    if (this.size) this.pick({ place: this.place, index: Math.floor(Math.random() * this.size) });
  }

  // own images ----------------------------------------------------------------------------------
  listenOwn() {
    const dialog = $("own");
    $("own-open").addEventListener("click", () => this.askOwn());
    $("own-cancel").addEventListener("click", () => dialog.close());
    $("own-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      $("own-error").textContent = "";
      const body = new FormData();
      body.append("image", $("own-file").files[0]);
      for (const name of ["target", "modality", "window"]) body.append(name, $(`own-${name}`).value);
      try {
        const made = await form("images", body);
        if (!this.places.some((p) => p.name === made.place))
          this.setPlaces([...this.places, { name: made.place, title: "your own images", own: true }], this.place);
        dialog.close();
        this.place = ""; // its list has changed
        this.pick({ place: made.place, index: made.index });
      } catch (error) {
        $("own-error").textContent = `This file cannot be used: ${error.message}`;
      }
    });
    const over = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      document.body.classList.add("dropping");
    };
    document.addEventListener("dragover", over);
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      document.body.classList.remove("dropping");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      if (this.onScan(event.dataTransfer)) return;
      $("own-file").files = event.dataTransfer.files;
      this.askOwn();
    });
  }

  askOwn() {
    $("own-error").textContent = "";
    if (!$("own").open) $("own").showModal();
    say("Own image: choose a file and name the target");
  }
}
