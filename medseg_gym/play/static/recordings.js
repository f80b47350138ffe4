// Recordings: browse what was stored, and play it again.

import { get } from "./api.js";
import { drawCurve } from "./curve.js";
import { $, format, h } from "./dom.js";
import { COLOURS, Mask, bitmapOf, blobOf } from "./pixels.js";
import { Player } from "./player.js";
import { listSteps } from "./steps.js";
import { Viewer } from "./viewer.js";

const person = (policy) => policy.replace(/^person:/, "");

export class Recordings {
  constructor() {
    this.viewer = new Viewer($("rec-canvas"));
    this.player = new Player($("rec-player"), this.viewer, () => this.draw());
    this.one = null;
    this.listed = this.opened = 0; // how often was asked: an answer that comes late shows nothing
    let waiting;
    $("rec-find").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.list(), 250);
    });
  }

  async list() {
    const asked = ++this.listed;
    const listed = await get("recordings", { find: $("rec-find").value });
    if (asked !== this.listed) return;
    const shown = listed.rows.length < listed.total ? `, the newest ${listed.rows.length} are listed` : "";
    const none = "Nothing is recorded yet. Play a case: every step is kept.";
    const damaged = listed.damaged.length ? ` Damaged and left out: ${listed.damaged.join(", ")}.` : "";
    $("rec-count").textContent = (listed.total ? `${listed.total} finished episodes${shown}.` : none) + damaged;
    $("rec-list").replaceChildren(...listed.rows.map((row) => this.entry(row)));
  }

  entry(row) {
    const facts = [`${row.steps} steps`, row.synthetic ? "synthetic" : null, row.oracle ? "oracle" : null];
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
    this.player.begin();
    this.viewer.blank();
    this.one = one;
    $("rec-task").textContent = `${person(one.policy)}: ${one.case.target}`;
    const facts = [one.case.key, one.backbone, one.case.synthetic ? "synthetic" : "", one.oracle ? "oracle" : ""];
    if (one.missing) facts.push(`image not available: ${one.missing}`);
    $("rec-facts").textContent = facts.filter(Boolean).join(" · ");
    if (one.image) this.viewer.setImage(await bitmapOf(blobOf(one.image)));
    else this.viewer.setImage(await createImageBitmap(new ImageData(one.case.width, one.case.height)));
    this.viewer.truth = await Mask.read(one.truth, COLOURS.truth);
    await this.player.add(one.steps);
    this.player.show(0);
    this.player.play(true);
  }

  draw() {
    const one = this.one;
    const line = { name: person(one.policy), kind: "you", start: one.start_dice, steps: one.steps, now: this.player.at };
    const note = one.start_dice === undefined ? "no truth, no Dice" : "";
    drawCurve($("rec-curve"), [line], one.max_steps, note);
    listSteps($("rec-steps"), one.steps, this.player.at);
  }
}
