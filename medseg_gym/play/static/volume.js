// The view of volumes: connects slices, prompts, planes, score and downloads.

import { Silent, fetchImage, get, post } from "./api.js";
import { showBanner } from "./banner.js";
import { drawCurve } from "./curve.js";
import { $, TOOL_NAMES, format, h, say } from "./dom.js";
import { blobOf } from "./pixels.js";
import { VolumeCases } from "./volume_cases.js";
import { ScanFiles } from "./volume_files.js";
import { VolumeGame } from "./volume_game.js";
import { Planes } from "./volume_planes.js";
import { Slices } from "./volume_slices.js";
import { Strip } from "./volume_strip.js";
import { SliceViewer } from "./volume_viewer.js";

const SETTLED = 60; // milliseconds on a slice before it is encoded
const FILE_NAMES = { nifti: "mask.nii.gz", seg: "mask.dcm" };

export class Volumes {
  // backbone(): { backbone, trained } of the service; exam(): whether the next game is an exam
  constructor(backbone, exam) {
    this.backbone = backbone;
    this.exam = exam;
    this.viewer = new SliceViewer($("vol-canvas"));
    this.game = new VolumeGame();
    this.slices = new Slices();
    this.strip = new Strip((index) => this.show(index));
    this.planes = new Planes((index) => this.show(index));
    this.cases = new VolumeCases((picked) => this.guarded(() => this.begin(picked)), (key) => this.guarded(() => this.gone(key)));
    this.files = new ScanFiles((picked, leftOut) => this.guarded(() => this.opened(picked, leftOut)));
    this.index = 0;
    this.turn = 0; // of showing: a slice that comes late is not shown
    this.note = "";
    this.setup = null;
    this.entered = false;
    this.listen();
  }

  async guarded(work) {
    try {
      return await work();
    } catch (error) {
      showBanner(error instanceof Silent ? "The service does not answer; try again." : error.message);
    }
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

  async load(chosen) {
    this.setup = await get("volumes/setup");
    this.files.limits = this.setup.scan;
    this.cases.setPlaces(this.setup.places, chosen ?? this.cases.place);
  }

  async begin(picked) {
    this.note = "";
    $("vol-pane").setAttribute("aria-busy", "true");
    try {
      await this.game.begin(picked, this.exam());
      await this.cases.show(this.game.state);
    } finally {
      $("vol-pane").setAttribute("aria-busy", "false");
    }
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
    await this.load();
    if (here) await this.cases.open(this.cases.place);
    else await this.cases.turn(this.cases.start);
  }

  // slices --------------------------------------------------------------------------------------
  async show(index, keep = false) {
    const { state } = this.game;
    if (!state) return;
    const wanted = Math.min(state.case.depth - 1, Math.max(0, index));
    if (wanted !== this.index || !keep) $("vol-pane").dataset.ready = "false";
    this.index = wanted;
    this.strip.draw(state, wanted);
    this.planes.line(wanted);
    const turn = ++this.turn;
    const here = state.slices[wanted];
    try {
      const [image, mask, truth] = await Promise.all([
        this.slices.image(wanted),
        this.slices.mask(wanted, here?.mask),
        state.truth?.includes(wanted) ? this.slices.truth(wanted) : null,
      ]);
      if (turn !== this.turn) return;
      this.viewer.setSlice(image, { mask, truth, box: here?.box ?? null, points: here?.points ?? [] });
    } catch (error) {
      if (turn === this.turn) await this.game.fail(error, state.game);
      return;
    }
    $("vol-pane").dataset.shown = String(wanted);
    this.slices.fetchAhead(wanted, state);
    if (keep) return;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.look(wanted), SETTLED);
  }

  // Have the slice encoded, so that its first prompt is answered at once.
  async look(index) {
    const { state } = this.game;
    if (!state || state.done) return;
    try {
      const { ready } = await post(`volumes/games/${state.game}/look`, { slice: index });
      if (ready && index === this.index && state.game === this.game.state.game) $("vol-pane").dataset.ready = "true";
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
    return details.filter(Boolean).join(" · ");
  }

  draw() {
    const { state } = this.game;
    const scored = state.dice !== undefined;
    $("vol-task").replaceChildren("Outline the ", h("b", {}, state.case.target));
    $("vol-facts").textContent = this.facts(state);
    $("vol-dice").textContent = scored ? format(state.dice) : "–";
    const hidden = state.case.truth_known ? "hidden until you are done" : "no truth, no Dice";
    $("vol-dice-label").textContent = scored ? "3D Dice" : `3D Dice: ${hidden}`;
    const amount = state.ml === null ? `${state.voxels.toLocaleString("en")} voxels` : `${format(state.ml, state.ml < 10 ? 2 : 1)} mL`;
    const steps = state.done ? `done after ${state.taken} steps` : `${state.taken} of ${state.max_steps} steps`;
    $("vol-score-details").textContent = `Mask: ${amount} · ${steps}`;
    $("vol-curve").hidden = !scored;
    if (scored) {
      const mine = { name: "You", kind: "you", start: state.start_dice, steps: state.steps };
      drawCurve($("vol-curve"), [mine], Math.max(10, state.taken));
    }
    $("vol-steps").replaceChildren(...state.steps.map((step) => this.entry(step)));
    $("vol-steps").scrollTop = $("vol-steps").scrollHeight;
    $("vol-truth-label").hidden = !state.truth;
    $("vol-stop").hidden = state.done;
    $("vol-next").hidden = !state.done;
    $("vol-save-seg").hidden = !state.formats.includes("seg");
    this.enable();
    this.hint();
  }

  entry(step) {
    const name = step.slice === null ? TOOL_NAMES[step.tool] : `${TOOL_NAMES[step.tool]}, slice ${step.slice + 1}`;
    const words = [h("span", { className: "tool-name" }, name)];
    if (!step.valid) words.push(h("span", { className: "fault" }, step.error));
    if (step.dice !== undefined) words.push(h("span", { className: "number" }, format(step.dice)));
    return h("li", {}, ...words);
  }

  enable() {
    const { state } = this.game;
    const closed = this.game.over || this.game.lost;
    const busy = this.game.waiting.includes("propagate");
    const tools = this.setup?.tools ?? [];
    for (const tool of document.querySelectorAll("#volumes .tool"))
      tool.disabled = closed || busy || !tools.includes(tool.dataset.tool);
    const prompted = Object.values(state.slices).some((one) => one.prompted && one.pixels);
    $("vol-propagate").disabled = closed || busy || !prompted;
    $("vol-undo").disabled = closed || busy || !state.steps.some((step) => step.valid);
    $("vol-clear").disabled = closed || busy || !Object.keys(state.slices).length;
    $("vol-stop").disabled = closed || busy;
    $("vol-save-nifti").disabled = this.game.lost || busy || !state.voxels;
    $("vol-save-seg").disabled = this.game.lost || busy || !state.voxels;
    $("vol-pane").classList.toggle("busy", this.game.waiting.length > 0);
    $("vol-pane").classList.toggle("closed", closed);
    if (busy) $("vol-hint").textContent = "The mask is carried from slice to slice; slices without an encoding take longer …";
  }

  hint() {
    const { state } = this.game;
    const last = state.steps.at(-1);
    const prompted = Object.values(state.slices).filter((one) => one.prompted).length;
    let text;
    if (state.done) text = state.truth ? "The orange line is the truth. Download the mask, or go on." : "Download the mask, or go on.";
    else if (last && !last.valid) text = `That changed nothing and used a step: ${last.error}.`;
    else if (!prompted) text = "Scroll to a slice that shows the target well and drag a box around it.";
    else if (last?.tool === "propagate") text = "Scroll through the mask; correct a slice with clicks and propagate again.";
    else text = "Propagate carries the mask through the other slices. Prompts on further slices make it better.";
    const kinds = { box: "box", positive_point: "point", negative_point: "point" };
    const { backbone, trained } = this.backbone();
    if (kinds[this.viewer.tool] && !trained.includes(kinds[this.viewer.tool]))
      text += ` ${backbone} was not trained for this kind of prompt.`;
    $("vol-hint").textContent = [this.note, text].filter(Boolean).join(" ");
  }

  choose(tool, focus = false) {
    if (!this.setup?.tools.includes(tool)) return;
    this.viewer.tool = tool;
    this.viewer.corner = null;
    for (const button of document.querySelectorAll("#volumes .tool")) {
      const on = button.dataset.tool === tool;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
      if (on && focus) button.focus();
    }
    if (this.game.state) this.hint();
    say(`Clicks: ${TOOL_NAMES[tool]}`);
  }

  setOpacity(percent) {
    const value = Math.min(100, Math.max(0, percent));
    $("vol-opacity").value = value;
    this.viewer.opacity = this.planes.opacity = value / 100;
    this.viewer.draw();
    this.planes.paint();
  }

  toggleMask() {
    this.viewer.showMask = this.planes.showMask = !this.viewer.showMask;
    this.viewer.draw();
    this.planes.paint();
    say(this.viewer.showMask ? "Mask shown" : "Mask hidden");
  }

  async save(kind) {
    const { state } = this.game;
    if (!state) return;
    const button = $(`vol-save-${kind}`);
    button.disabled = true;
    try {
      const blob = await fetchImage(`volumes/games/${state.game}/mask`, { kind });
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: FILE_NAMES[kind] }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say("The mask is downloaded");
    } finally {
      this.enable();
    }
  }

  // input ---------------------------------------------------------------------------------------
  act(tool, at) {
    const onSlice = Boolean(at);
    if (onSlice) this.planes.at = at.length === 4 ? [(at[0] + at[2]) / 2, (at[1] + at[3]) / 2] : at;
    return this.game.step(tool, onSlice ? this.index : null, at ?? []);
  }

  listen() {
    const { viewer, game } = this;
    game.addEventListener("begin", () => {
      const { state } = game;
      const one = state.case;
      this.slices.open(state.game);
      this.planes.open(one.depth);
      viewer.blank();
      viewer.reset();
      const [, row, column] = one.spacing ?? [1, 1, 1];
      viewer.pixel = [1, row / column];
      this.index = state.view;
      viewer.canvas.setAttribute("aria-label",
        `Slice, ${one.width} by ${one.height}. Outline the ${one.target}. Arrow keys scroll; Enter brings a cursor and places the prompt.`);
      say(`New volume: outline the ${one.target}`);
    });
    game.addEventListener("change", ({ detail }) => {
      const { state } = game;
      if (state.mask && state.slices[state.view]?.mask)
        this.slices.keep(state.view, state.slices[state.view].mask, blobOf(state.mask));
      this.draw();
      this.show(this.index, Boolean(detail.step)).then(() => {
        if (detail.step) $("vol-pane").dataset.taken = String(state.taken);
      });
      this.planes.refresh(state.game);
      const { step } = detail;
      if (!step) return;
      const words = [`Step ${step.number}: ${TOOL_NAMES[step.tool]}`];
      if (!step.valid) words.push(step.error);
      if (step.tool === "propagate" && step.valid) words.push($("vol-extent").textContent);
      if (step.dice !== undefined) words.push(`3D Dice ${format(step.dice, 2)}`);
      if (state.done) words.push("The game is over.");
      say(words.join(". "));
    });
    game.addEventListener("busy", () => game.state && this.enable());
    game.addEventListener("again", () => this.guarded(async () => {
      const { place, case: one } = game.state;
      await this.load();
      await this.begin({ place, key: one.key });
    }));
    viewer.addEventListener("prompt", ({ detail }) => {
      if (game.waiting.includes("propagate")) return;
      if (!this.setup.tools.includes(detail.tool)) showBanner(`${this.backbone().backbone} takes no such prompt.`);
      else this.act(detail.tool, detail.at);
    });
    viewer.addEventListener("scroll", ({ detail }) => this.scroll(detail));
    viewer.addEventListener("nobox", () => {
      $("vol-hint").textContent = "Drag to draw a box. To click, choose Add (P) or Remove (N).";
      say($("vol-hint").textContent);
    });
    viewer.addEventListener("cursor", () => {
      const [x, y] = viewer.cursor.map((v) => Math.round(100 * v));
      say(`${x} percent across, ${y} percent down`);
    });
    viewer.addEventListener("corner", () => say("First corner set. Move to the opposite one and press Enter."));
    viewer.addEventListener("view", () => {
      $("vol-window").value = viewer.window;
      $("vol-level").value = viewer.level;
    });
    document.addEventListener("keydown", (event) => {
      // Scrolling needs no focus, unless something that uses these keys has it.
      if ($("volumes").hidden || document.querySelector("dialog[open]")) return;
      if (event.target.closest("input, select, canvas, [role=radio], .scroll")) return;
      if (/^(Arrow|Page|Home|End)/.test(event.key)) viewer.key(event);
    });
    const tools = [...document.querySelectorAll("#volumes .tool")];
    for (const [i, button] of tools.entries()) {
      button.addEventListener("click", () => this.choose(button.dataset.tool));
      button.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        this.choose(tools[(i + by + tools.length) % tools.length].dataset.tool, true);
      });
    }
    for (const tool of ["propagate", "undo", "clear", "stop"]) $(`vol-${tool}`).addEventListener("click", () => this.act(tool));
    $("vol-next").addEventListener("click", () => this.cases.step(1));
    for (const kind of ["nifti", "seg"]) $(`vol-save-${kind}`).addEventListener("click", () => this.guarded(() => this.save(kind)));
    for (const id of ["vol-window", "vol-level"])
      $(id).addEventListener("input", () => viewer.setWindow(Number($("vol-window").value), Number($("vol-level").value)));
    $("vol-opacity").addEventListener("input", () => this.setOpacity(Number($("vol-opacity").value)));
    $("vol-zoom-in").addEventListener("click", () => viewer.zoomBy(1.4));
    $("vol-zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.4));
    $("vol-zoom-fit").addEventListener("click", () => viewer.fit());
    $("vol-view-reset").addEventListener("click", () => viewer.reset());
    $("vol-truth").addEventListener("change", () => {
      viewer.showTruth = $("vol-truth").checked;
      viewer.draw();
    });
  }
}
