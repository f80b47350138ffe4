// The view of images.

import { Beside } from "./beside.js";
import { Cases } from "./cases.js";
import { $, say } from "./dom.js";
import { ImageGame } from "./image_game.js";
import { PlayView } from "./play_view.js";
import { ImageScreen } from "./screens.js";
import { Viewer } from "./viewer.js";

export class Images extends PlayView {
  // onScan(dropped): true if what was dropped is a scan, which goes elsewhere
  constructor(who, onScan) {
    super("", "play", who);
    this.viewer = new Viewer($("you-canvas"), { acts: true });
    this.game = new ImageGame(this.viewer, () => this.verdict());
    this.beside = new Beside("", this.viewer, new ImageScreen(new Viewer($("other-canvas"))), () => this.show());
    this.cases = new Cases((picked) => this.guarded(() => this.begin(picked)), onScan);
    this.listen();
  }

  facts(state) {
    const one = state.case;
    const size = `${one.width} × ${one.height}`;
    const details = [one.modality, one.synthetic ? "synthetic image" : "", this.cases.titleOf(state.place), one.key, size];
    if (!one.truth_known) details.push("no truth: no Dice");
    if (state.try > 1) details.push(`try ${state.try}`);
    return details.filter(Boolean).join(" · ");
  }

  show() {
    if (!this.game.state) return;
    this.draw("Dice");
    this.beside.screen.viewer.truth = this.viewer.truth; // once you are done, on both
    this.beside.screen.viewer.draw();
  }

  enable() {
    const { state } = this.game.state;
    this.enableMore({ masked: Boolean(state.mask), clearable: state.box || state.points.length });
  }

  hint() {
    const { state } = this.game;
    const last = state.steps.at(-1);
    let text;
    if (state.done) text = state.case.truth_known ? "The orange line is the truth. Watch a policy on the same case, or go on." : "Recorded. Download the mask, or go on with the next image.";
    else if (last && !last.valid) text = `That changed nothing and used a step: ${last.error}.`;
    else if (!last) text = "Drag a box around the target. Then click to add what is missing, right-click to take away what is too much.";
    else text = "Add or remove with clicks, or draw a better box. Done when the green area is right.";
    this.$("hint").textContent = [this.refusedText(state), text, this.untrainedText()].filter(Boolean).join(" ");
  }

  act(tool, at) {
    return this.game.step(tool, at);
  }

  listen() {
    super.listen();
    const { game, viewer } = this;
    this.$("save-note").textContent = "As large as the image, white where the target is.";
    game.addEventListener("begin", () => {
      this.beside.close();
      this.$("accepted").checked = false;
      const one = game.state.case;
      viewer.canvas.setAttribute("aria-label",
        `Image, ${one.width} by ${one.height}. Outline the ${one.target}. Arrow keys move the cursor, Enter places the prompt.`);
      for (const id of ["window", "level"]) this.$(id).disabled = !viewer.image.grey;
      say(`New case: outline the ${one.target}`);
    });
    game.addEventListener("change", ({ detail }) => {
      this.show();
      this.announce("Dice", detail.step);
    });
  }
}
