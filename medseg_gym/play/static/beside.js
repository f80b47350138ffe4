// A policy that plays the same case or volume, watched step by step.

import { get, post } from "./api.js";
import { $, h } from "./dom.js";
import { Player } from "./player.js";

const PAUSE = 150; // milliseconds between questions for further steps

export class Beside {
  // prefix: of the ids; mine: the viewer of the person's own game; screen: see screens.js;
  // onShow(): something about the policy's line in the curve has changed.
  constructor(prefix, mine, screen, onShow) {
    Object.assign(this, { prefix, mine, screen, onShow });
    this.player = new Player(this.$("beside-player"), screen, onShow);
    this.line = null;
    this.images = null; // Slices of the person's own game, on volumes
    this.turn = 0; // of watching: an older one stops asking
    this.$("watch").addEventListener("click", () => this.watch());
  }

  $(id) {
    return $(this.prefix + id);
  }

  setPolicies(policies) {
    this.$("policy").replaceChildren(...policies.map((name) => h("option", { value: name }, name)));
    this.none = policies.length ? "" : "No policy plays here.";
  }

  close() {
    this.turn++;
    this.player.begin();
    this.line = null;
    this.screen.close();
    this.mine.partner = this.screen.viewer.partner = null;
    this.$("other-pane").hidden = this.$("beside-player").hidden = true;
    this.$("panes").classList.remove("two");
    this.$("beside-note").textContent = "";
  }

  // Reason why nothing can be watched now is shown.
  allow(game) {
    const why = !game.case.truth_known
      ? "Policies play where the truth is known."
      : game.exam && !game.done
        ? "In an exam, after you are done."
        : this.none;
    this.$("watch").disabled = Boolean(why);
    if (!this.line) this.$("beside-note").textContent = why;
    this.game = game;
  }

  async watch() {
    if (this.$("watch").disabled) return;
    const { game } = this;
    this.close();
    const turn = ++this.turn;
    const name = this.$("policy").value;
    this.$("beside-note").textContent = `${name} plays …`;
    try {
      let shown = await post("watch", { policy: name, place: game.place, key: game.case.key });
      if (turn !== this.turn) return;
      this.open(name, shown.watch);
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
        await new Promise((done) => setTimeout(done, PAUSE));
        shown = await get(`watch/${shown.watch}`, { since: this.player.steps.length });
      }
      this.player.ended = true;
    } catch (error) {
      if (turn === this.turn) this.$("beside-note").textContent = error.message;
    }
  }

  open(name, id) {
    this.started = false;
    const { viewer } = this.screen;
    this.$("other-pane").hidden = this.$("beside-player").hidden = false;
    this.$("panes").classList.add("two");
    this.$("other-label").textContent = name;
    viewer.opacity = this.mine.opacity;
    this.screen.beside(this.mine, id, this.images);
    this.mine.partner = viewer;
    viewer.partner = this.mine;
    viewer.resize();
    this.mine.changed();
    this.screen.show(null);
  }

  note(shown, name) {
    const parts = [];
    if (shown.oracle) parts.push(`${name} is an oracle: it is shown the truth.`);
    if (shown.error) parts.push(shown.error);
    else if (!shown.done) parts.push("plays …");
    this.$("beside-note").textContent = parts.join(" ");
  }

  // The policy's line as far as it is shown, for the curve.
  curve() {
    if (!this.line) return null;
    return { ...this.line, steps: this.player.steps.slice(0, this.player.at), now: this.player.at };
  }
}
