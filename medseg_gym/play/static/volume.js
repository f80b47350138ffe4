// The view of volumes: connects slices, prompts, planes, score and downloads.

import { get, post } from "./api.js";
import { Beside } from "./beside.js";
import { $, format, say } from "./dom.js";
import { Game } from "./game.js";
import { blobOf } from "./pixels.js";
import { PlayView } from "./play_view.js";
import { VolumeScreen } from "./screens.js";
import { VolumeCases } from "./volume_cases.js";
import { ScanFiles } from "./volume_files.js";
import { VolumePane } from "./volume_pane.js";
import { Planes } from "./volume_planes.js";
import { Strip } from "./volume_strip.js";
import { SliceViewer } from "./volume_viewer.js";

const SETTLED = 60; // milliseconds on a slice before it is encoded

export class Volumes extends PlayView {
  // load(): ask the service for its setup again; it ends in setUp
  constructor(who, load) {
    super("vol-", "volumes", who);
    this.load = load;
    this.viewer = new SliceViewer($("vol-you-canvas"), true);
    this.pane = new VolumePane(this.viewer);
    this.game = new Game("medseg.volume", () => this.verdict());
    const other = new SliceViewer($("vol-other-canvas"), false);
    const screen = new VolumeScreen(new VolumePane(other), (index) => this.show(index));
    this.beside = new Beside("vol-", this.viewer, screen, () => this.score());
    this.beside.images = this.pane.slices;
    this.strip = new Strip("vol-", (index) => this.show(index));
    this.planes = new Planes((index) => this.show(index));
    this.cases = new VolumeCases((picked) => this.guarded(() => this.begin(picked)), (key) => this.guarded(() => this.gone(key)));
    this.files = new ScanFiles((picked, leftOut) => this.guarded(() => this.opened(picked, leftOut)));
    this.index = 0;
    this.note = "";
    this.entered = false;
    other.addEventListener("scroll", ({ detail }) => this.scroll(detail));
    this.listen();
  }

  // cases -------------------------------------------------------------------------------------
  async enter() {
    if (this.entered) return;
    this.entered = true;
    if (!this.setup) await this.load();
    this.choose(this.setup.tools[0]);
    if (await this.game.resume()) {
      await this.cases.turn(0);
      await this.cases.show(this.game.state);
    } else if (this.cases.place) await this.cases.open(this.cases.place);
  }

  setUp(service, sort, chosen = null) {
    super.setUp(service, sort, chosen);
    this.files.limits = service.scan;
  }

  async begin(picked) {
    this.note = "";
    await super.begin(picked);
  }

  async again(steps) {
    await this.load(); // own scans may be gone
    await super.again(steps);
  }

  async opened(picked, leftOut) {
    await this.load(picked.place);
    await this.cases.turn(0);
    await this.begin(picked);
    const left = Object.entries(leftOut).map(([reason, count]) => `${count} ${reason}`);
    this.note = left.length ? `Left out when it was read: ${left.join(", ")}.` : "";
    this.hint();
  }

  async gone(key) {
    const here = this.game.state?.case.key === key;
    await this.load(here ? "" : this.cases.place);
    if (here) await this.cases.open(this.cases.place);
    else await this.cases.turn(this.cases.start);
  }

  // slices --------------------------------------------------------------------------------------
  async show(index, keep = false) {
    const { state } = this.game;
    if (!state) return;
    const pane = $("vol-you-pane");
    const wanted = Math.min(state.case.depth - 1, Math.max(0, index));
    if (wanted !== this.index || !keep) pane.dataset.ready = "false";
    this.index = wanted;
    this.strip.draw(state.case.depth, state.slices, state.truth, wanted);
    this.planes.line(wanted);
    this.beside.screen.look(wanted);
    try {
      if (!(await this.pane.show(wanted, state.slices[wanted], this.truthOf(wanted)))) return;
    } catch (error) {
      if (this.game.state.game === state.game) await this.game.fail(error, state.game);
      return;
    }
    pane.dataset.shown = String(wanted);
    this.pane.slices.fetchAhead(wanted, state.case.depth, state.slices);
    if (keep) return;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.look(wanted), SETTLED);
  }

  truthOf(index) {
    return this.game.state.truth?.includes(index) ? this.pane.slices.truth(index) : null;
  }

  // Have the slice encoded, so that its first prompt is answered at once.
  async look(index) {
    const { state } = this.game;
    if (!state || state.done) return;
    try {
      const { ready } = await post(`volumes/${state.game}/look`, { slice: index });
      if (ready && index === this.index && state.game === this.game.state.game) $("vol-you-pane").dataset.ready = "true";
    } catch {
      // a prompt on it will say what is wrong
    }
  }

  scroll(by) {
    const before = this.index;
    this.show(this.index + by);
    if (this.index !== before) say(`Slice ${this.index + 1}`);
  }

  // display -------------------------------------------------------------------------------------
  facts(state) {
    const one = state.case;
    const size = `${one.depth} slices of ${one.width} × ${one.height}`;
    const spacing = one.spacing ? `${one.spacing.map((mm) => Number(mm.toFixed(2))).join(" × ")} mm` : "spacing not known";
    const details = [one.modality, one.synthetic ? "synthetic" : "", this.cases.titleOf(state.place), one.key, one.axis, size, spacing];
    if (!one.truth_known) details.push("no truth: no Dice");
    if (state.try > 1) details.push(`try ${state.try}`);
    return details.filter(Boolean).join(" · ");
  }

  score() {
    const { state } = this.game;
    if (!state) return;
    const amount = state.ml === null ? `${state.voxels.toLocaleString("en")} voxels` : `${format(state.ml, state.ml < 10 ? 2 : 1)} mL`;
    this.draw("3D Dice", `Mask: ${amount}`);
  }

  enable() {
    const { state } = this.game;
    const { closed, busy } = this.enableMore({ masked: state.voxels > 0, clearable: Object.keys(state.slices).length });
    const prompted = Object.values(state.slices).some((one) => one.prompted && one.pixels);
    $("vol-propagate").disabled = closed || busy || !prompted;
    if (busy) $("vol-hint").textContent = "The mask is carried from slice to slice; slices without an encoding take longer …";
  }

  hint() {
    const { state } = this.game;
    const last = state.steps.at(-1);
    const prompted = Object.values(state.slices).filter((one) => one.prompted).length;
    let text;
    if (state.done) text = state.truth ? "The orange line is the truth. Download the mask, watch a policy, or go on." : "Download the mask, or go on.";
    else if (last && !last.valid) text = `That changed nothing and used a step: ${last.error}.`;
    else if (!prompted) text = "Scroll to a slice that shows the target well and drag a box around it.";
    else if (last?.tool === "propagate") text = "Scroll through the mask; correct a slice with clicks and propagate again.";
    else text = "Propagate carries the mask through the other slices. Prompts on further slices make it better.";
    $("vol-hint").textContent = [this.note, this.refusedText(state), text, this.untrainedText()].filter(Boolean).join(" ");
  }

  repaint() {
    super.repaint();
    this.planes.opacity = this.viewer.opacity;
    this.planes.showMask = this.viewer.showMask;
    this.planes.paint();
  }

  // input ---------------------------------------------------------------------------------------
  act(tool, at) {
    if (!at) return this.game.step(tool);
    this.planes.at = at.length === 4 ? [(at[0] + at[2]) / 2, (at[1] + at[3]) / 2] : at;
    return this.game.step(tool, at, this.index);
  }

  listen() {
    super.listen();
    const { viewer, game } = this;
    $("vol-save-note").textContent = "On the scan’s own grid.";
    game.addEventListener("begin", () => {
      this.beside.close();
      $("vol-accepted").checked = false;
      const { state } = game;
      const one = state.case;
      const [, row, column] = one.spacing ?? [1, 1, 1];
      this.pane.open(state.game, [1, row / column]);
      this.planes.open(one.depth);
      this.index = state.view;
      this.beside.screen.truth = null;
      viewer.canvas.setAttribute("aria-label",
        `Slice, ${one.width} by ${one.height}. Outline the ${one.target}. Arrow keys scroll; Enter brings a cursor and places the prompt.`);
      say(`New volume: outline the ${one.target}`);
    });
    game.addEventListener("change", ({ detail }) => {
      const { state } = game;
      if (state.mask && state.slices[state.view]?.mask)
        this.pane.slices.keep(state.view, state.slices[state.view].mask, blobOf(state.mask));
      if (state.truth) this.beside.screen.truth = (index) => this.truthOf(index);
      this.score();
      this.show(this.index, Boolean(detail.step)).then(() => {
        if (detail.step) $("vol-you-pane").dataset.taken = String(state.taken);
      });
      this.planes.refresh(state.game);
      const { step } = detail;
      this.announce("3D Dice", step, step?.tool === "propagate" && step.valid ? $("vol-extent").textContent : "");
    });
    viewer.addEventListener("scroll", ({ detail }) => this.scroll(detail));
    document.addEventListener("keydown", (event) => {
      // Scrolling needs no focus, unless something that uses these keys has it.
      if ($("volumes").hidden || document.querySelector("dialog[open]")) return;
      if (event.target.closest("input, select, canvas, [role=radio], .scroll")) return;
      if (/^(Arrow|Page|Home|End)/.test(event.key)) viewer.key(event);
    });
    $("vol-propagate").addEventListener("click", () => this.act("propagate"));
  }
}
