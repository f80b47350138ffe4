// A policy that plays the same case, watched step by step.

import { get, post } from "./api.js";
import { $, h } from "./dom.js";
import { Player } from "./player.js";
import { Viewer } from "./viewer.js";

export class Beside {
  // onShow(): something about the policy's line in the curve has changed.
  constructor(mine, onShow) {
    this.mine = mine;
    this.viewer = new Viewer($("other-canvas"));
    this.player = new Player($("beside-player"), this.viewer, onShow);
    this.onShow = onShow;
    this.line = null;
    this.turn = 0; // of watching: an older one stops asking
    $("watch").addEventListener("click", () => this.watch());
  }

  setPolicies(policies) {
    $("policy").replaceChildren(...policies.map((p) => h("option", { value: p.id }, p.name)));
  }

  close() {
    this.turn++;
    this.player.begin();
    this.line = null;
    this.viewer.blank();
    this.mine.partner = this.viewer.partner = null;
    $("other-pane").hidden = $("beside-player").hidden = true;
    $("panes").classList.remove("two");
    $("beside-note").textContent = "";
  }

  // Reason why nothing can be watched now, or "".
  allow(game) {
    const why = !game.case.truth_known
      ? "Policies play cases of the suite alone, whose truth is known."
      : game.exam && !game.done
        ? "In an exam, after you are done."
        : "";
    $("watch").disabled = Boolean(why);
    if (!this.line) $("beside-note").textContent = why;
    this.game = game;
  }

  async watch() {
    if ($("watch").disabled) return;
    const game = this.game;
    this.close();
    const turn = ++this.turn;
    const name = $("policy").selectedOptions[0].textContent;
    $("beside-note").textContent = `${name} plays …`;
    try {
      let shown = await post("watch", { policy: $("policy").value, place: game.place, key: game.case.key });
      if (turn !== this.turn) return;
      this.open(name);
      this.player.ended = false;
      while (turn === this.turn) {
        await this.player.add(shown.steps);
        if (shown.start_dice !== undefined) this.line = { name, kind: "other", start: shown.start_dice };
        if (shown.steps.length && !this.player.timer && !this.started) {
          this.started = true;
          this.player.play(true);
        }
        this.note(shown, name);
        if (shown.done) break;
        await new Promise((done) => setTimeout(done, 150));
        shown = await get(`watch/${shown.watch}`, { since: this.player.steps.length });
      }
      this.player.ended = true;
    } catch (error) {
      if (turn === this.turn) $("beside-note").textContent = error.message;
    }
  }

  open(name) {
    this.started = false;
    $("other-pane").hidden = $("beside-player").hidden = false;
    $("panes").classList.add("two");
    $("other-label").textContent = name;
    this.viewer.image = this.mine.image;
    this.viewer.opacity = this.mine.opacity;
    this.viewer.truth = this.mine.truth;
    this.mine.partner = this.viewer;
    this.viewer.partner = this.mine;
    this.viewer.resize();
    this.mine.changed();
  }

  note(shown, name) {
    const parts = [];
    if (shown.oracle) parts.push(`${name} is an oracle: it is shown the truth.`);
    if (shown.error) parts.push(shown.error);
    else if (!shown.done) parts.push("plays …");
    $("beside-note").textContent = parts.join(" ");
  }

  // The policy's line as far as it is shown, for the curve.
  curve() {
    if (!this.line) return null;
    return { ...this.line, steps: this.player.steps.slice(0, this.player.at), now: this.player.at };
  }
}
