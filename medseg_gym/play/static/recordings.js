// Recordings: browse what was stored, and play it again.

import { get } from "./api.js";
import { drawCurve } from "./curve.js";
import { $, format, h } from "./dom.js";
import { COLOURS, Mask, bitmapOf, blobOf } from "./pixels.js";
import { Player } from "./player.js";
import { ImageScreen, VolumeScreen } from "./screens.js";
import { listSteps } from "./steps.js";
import { Viewer } from "./viewer.js";
import { VolumePane } from "./volume_pane.js";
import { Strip } from "./volume_strip.js";
import { SliceViewer } from "./volume_viewer.js";

const person = (policy) => policy.replace(/^person:/, "");

export class Recordings {
  constructor() {
    this.images = new ImageScreen(new Viewer($("rec-canvas")));
    const slices = new SliceViewer($("rec-vol-canvas"), false);
    this.volumes = new VolumeScreen(new VolumePane(slices), (index) => this.showSlice(index));
    this.strip = new Strip("rec-vol-", (index) => this.showSlice(index));
    slices.addEventListener("scroll", ({ detail }) => this.showSlice(this.volumes.index + detail));
    $("rec-vol-slices").hidden = true;
    this.player = new Player($("rec-player"), this.images, () => this.draw());
    this.one = null;
    this.listed = this.opened = 0; // how often was asked: an answer that comes late shows nothing
    let waiting;
    $("rec-find").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.list(), 250);
    });
  }

  get viewer() {
    return this.player.screen.viewer;
  }

  async list() {
    const asked = ++this.listed;
    const listed = await get("recordings", { find: $("rec-find").value });
    if (asked !== this.listed) return;
    const shown = listed.rows.length < listed.total ? `, the newest ${listed.rows.length} are listed` : "";
    const none = "Nothing is recorded yet. Play a case: every step is kept.";
    const damaged = listed.damaged.length ? ` Damaged and left out: ${listed.damaged.join(", ")}.` : "";
    const count = listed.total === 1 ? "1 finished episode" : `${listed.total} finished episodes`;
    $("rec-count").textContent = (listed.total ? `${count}${shown}.` : none) + damaged;
    $("rec-list").replaceChildren(...listed.rows.map((row) => this.entry(row)));
    $("rec-list").dataset.listed = String(asked);
  }

  entry(row) {
    const facts = [`${row.steps} steps`, row.synthetic ? "synthetic" : null, row.oracle ? "oracle" : null];
    if (row.depth !== null) facts.unshift(`${row.depth} slices`);
    if (row.accepted === false) facts.push("not an example");
    return h("li", {},
      h("button", { type: "button", className: "case", on: { click: (event) => this.open(row, event.currentTarget) } },
        h("span", { className: "names" },
          h("b", {}, person(row.policy)),
          h("span", {}, row.target),
          h("span", { className: "muted" }, `${row.case} · ${facts.filter(Boolean).join(" · ")}`)),
        h("span", { className: "number" }, row.dice === null ? "no truth" : format(row.dice))));
  }

  async open(row, button) {
    const asked = ++this.opened;
    const one = await get("recording", { store: row.store, id: row.id });
    if (asked !== this.opened) return;
    for (const other of $("rec-list").querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button?.setAttribute("aria-current", "true");
    this.one = null;
    this.player.begin();
    this.player.screen.close();
    this.one = one;
    $("rec-task").textContent = `${person(one.policy)}: ${one.case.target}`;
    const facts = [one.case.key, one.backbone, one.case.synthetic ? "synthetic" : "", one.oracle ? "oracle" : ""];
    if (one.volume) facts.splice(1, 0, `${one.case.depth} slices`);
    if (one.missing) facts.push(`image not available: ${one.missing}`);
    $("rec-facts").textContent = facts.filter(Boolean).join(" · ");
    const onVolume = Boolean(one.volume);
    $("rec-pane").hidden = onVolume;
    $("rec-vol-pane").hidden = $("rec-vol-slices").hidden = !onVolume;
    this.player.screen = onVolume ? this.volumes : this.images;
    if (onVolume) this.openVolume(one);
    else await this.openImage(one);
    if (asked !== this.opened) return;
    await this.player.add(one.steps);
    this.player.show(0);
    this.player.play(true);
  }

  async openImage(one) {
    const { viewer } = this.images;
    if (one.image) viewer.setImage(await bitmapOf(blobOf(one.image)));
    else viewer.setImage(await createImageBitmap(new ImageData(one.case.width, one.case.height)));
    viewer.truth = await Mask.read(one.truth, COLOURS.truth);
  }

  openVolume(one) {
    const [, row, column] = one.case.spacing ?? [1, 1, 1];
    const { pane } = this.volumes;
    pane.open(one.volume, [1, row / column]);
    pane.viewer.resize();
    this.volumes.truth = (index) => (one.truth?.includes(index) ? pane.slices.truth(index) : null);
    this.volumes.index = one.steps.find((step) => step.slice !== null)?.slice ?? one.case.depth >> 1;
  }

  showSlice(index) {
    const { one } = this;
    if (!one?.volume) return;
    const wanted = Math.min(one.case.depth - 1, Math.max(0, index));
    const { pane } = this.volumes;
    this.volumes.look(wanted)?.then((shown) => {
      if (!shown) return;
      $("rec-vol-pane").dataset.shown = String(wanted);
      pane.slices.fetchAhead(wanted, one.case.depth, this.volumes.step?.slices ?? {});
    });
    this.strip.draw(one.case.depth, this.volumes.step?.slices ?? {}, one.truth, wanted);
  }

  draw() {
    const { one } = this;
    if (!one) return;
    const line = { name: person(one.policy), kind: "you", start: one.start_dice, steps: one.steps, now: this.player.at };
    const note = one.start_dice === undefined ? "no truth, no Dice" : "";
    drawCurve($("rec-curve"), [line], one.max_steps, note);
    listSteps($("rec-steps"), one.steps, this.player.at);
    if (one.volume) this.showSlice(this.volumes.index);
  }
}
