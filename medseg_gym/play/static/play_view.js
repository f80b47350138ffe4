// What the views of images and of volumes share: prompts, score, steps, downloads, and how it is shown.

import { Silent, fetchImage } from "./api.js";
import { showBanner } from "./banner.js";
import { drawCurve } from "./curve.js";
import { $, TOOL_NAMES, format, h, remember, remembered, say } from "./dom.js";
import { coordinates } from "./game.js";
import { listSteps } from "./steps.js";

const KINDS = { box: "box", positive_point: "point", negative_point: "point" };
const FILES = { png: "mask.png", nifti: "mask.nii.gz", seg: "mask.dcm" };

export class PlayView {
  // prefix: of the ids; main: id of the view; game, viewer and beside: set by the subclass before listen();
  // who(): { player, exam }
  constructor(prefix, main, who) {
    Object.assign(this, { prefix, main, who });
    this.setup = null; // what the service says of this sort of cases
    this.service = null; // what it says of the rest
    this.waitingNote = "";
  }

  $(id) {
    return $(this.prefix + id);
  }

  get tools() {
    return [...document.querySelectorAll(`#${this.main} .tool`)];
  }

  // All viewers that are shown as the first one is.
  get viewers() {
    return [this.viewer, this.beside.screen.viewer];
  }

  async guarded(work) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Silent && this.game.state) this.game.wait();
      else showBanner(error instanceof Silent ? "The service does not answer; try again." : error.message);
    }
  }

  setUp(service, sort, chosen = null) {
    this.service = service;
    this.setup = sort;
    this.cases.setPlaces(sort.places, chosen ?? this.game.state?.place ?? this.cases.place);
    this.beside.setPolicies(sort.policies);
  }

  // cases -----------------------------------------------------------------------------------------
  async begin(picked) {
    if (!(await this.game.begin(picked, this.who()))) return;
    const { place, index } = this.game.state;
    await this.cases.show({ place, index });
  }

  async again(steps) {
    const { place, case: one } = this.game.state;
    await this.begin({ place, key: one.key });
    for (const step of steps ?? []) await this.game.step(step.tool, coordinates(step.prompt), step.prompt.slice ?? null);
  }

  // Another player, or an exam: from the next game on; at once where nothing has happened yet. The game
  // stays the same one: a new one would throw away the click that made the field lose the focus.
  changeWho() {
    const { state } = this.game;
    if (state && !state.steps.length && !this.game.waiting.length) this.guarded(() => this.game.rename(this.who()));
    else if (state) say("From the next case on");
  }

  verdict() {
    const least = Number(this.$("least").value);
    return { accepted: this.$("accepted").checked, least_dice: Math.min(1, Math.max(0, least || 0)) };
  }

  // display ---------------------------------------------------------------------------------------
  // noun: "Dice" or "3D Dice"; amount: of the mask, in words
  draw(noun, amount = "") {
    const { state } = this.game;
    const scored = state.dice !== undefined;
    this.$("task").replaceChildren("Outline the ", h("b", {}, state.case.target));
    this.$("facts").textContent = this.facts(state);
    this.$("dice").textContent = scored ? format(state.dice) : "–";
    const hidden = state.case.truth_known ? "hidden until you are done" : "no truth, no Dice";
    this.$("dice-label").textContent = scored ? noun : `${noun}: ${hidden}`;
    const taken = state.steps.length;
    const details = [`${state.steps_left} of ${state.max_steps} steps left`];
    if (scored) details.push(`return ${format(state.return)}`);
    if (state.done) details[0] = state.stopped ? `done after ${taken} steps` : "all steps are used up";
    this.$("score-details").textContent = [amount, ...details].filter(Boolean).join(" · ");
    const used = Math.min(taken, state.max_steps);
    this.$("pips").hidden = state.max_steps > 40;
    this.$("pips").setAttribute("aria-label", `${used} of ${state.max_steps} steps used`);
    this.$("pips").replaceChildren(
      ...Array.from({ length: state.max_steps }, (_, i) =>
        h("span", { className: i < used ? (state.steps[i].valid ? "used" : "used bad") : "" })));
    const mine = { name: "You", kind: "you", start: state.start_dice, steps: state.steps };
    const lines = [scored ? mine : { name: "You" }, this.beside.curve()].filter(Boolean);
    const length = state.kept ? state.max_steps : Math.max(10, taken);
    drawCurve(this.$("curve"), lines, length, scored ? "" : hidden);
    listSteps(this.$("steps"), state.steps);
    this.$("steps").scrollTop = this.$("steps").scrollHeight;
    this.$("kept").textContent = this.keptText(state);
    this.$("example").hidden = !state.kept;
    this.$("truth-label").hidden = !state.truth;
    this.$("stop").hidden = state.done;
    this.$("next").hidden = !state.done;
    for (const kind of Object.keys(FILES)) this.$(`save-${kind}`).hidden = !state.formats.includes(kind);
    this.beside.allow(state);
    this.enable();
    this.hint();
  }

  keptText(state) {
    const { record, store } = this.service;
    if (!state.kept) return "Not recorded: nothing of your own scan is kept.";
    const kept = state.recorded;
    return kept ? `${kept} of ${state.steps.length} recorded in ${record}/${store}` : "Every step is recorded as you take it.";
  }

  // What the state has beyond prompts: whether there is a mask, and something to clear.
  enableMore({ masked, clearable }) {
    const { game } = this;
    const { state } = game;
    const closed = game.over || game.lost;
    const busy = game.waiting.includes("propagate");
    const tools = this.setup?.tools ?? [];
    for (const tool of this.tools) tool.disabled = closed || busy || !tools.includes(tool.dataset.tool);
    this.$("undo").disabled = closed || busy || !state.steps.some((step) => step.valid);
    this.$("clear").disabled = closed || busy || !clearable;
    this.$("stop").disabled = closed || busy;
    this.$("accepted").disabled = this.$("least").disabled = closed;
    for (const kind of Object.keys(FILES)) this.$(`save-${kind}`).disabled = game.lost || busy || !masked;
    this.$("you-pane").classList.toggle("busy", game.waiting.length > 0);
    this.$("you-pane").setAttribute("aria-busy", String(game.beginning > 0));
    this.$("you-pane").classList.toggle("closed", closed);
    return { closed, busy };
  }

  // Why a game that was ticked is no good example, or "".
  refusedText(state) {
    if (!state.done || !state.kept || !this.$("accepted").checked || state.accepted !== false) return "";
    const { least_dice: least } = this.verdict();
    const bound = state.dice > 0 ? `below ${format(least, 2)} ` : "";
    return `Dice ${format(state.dice)} is ${bound}no good example: not used for training.`;
  }

  untrainedText() {
    const kind = KINDS[this.viewer.tool];
    const { backbone, trained } = this.service;
    return kind && !trained.includes(kind) ? `${backbone} was not trained for this kind of prompt.` : "";
  }

  choose(tool, focus = false) {
    if (!this.setup?.tools.includes(tool)) return;
    this.viewer.tool = tool;
    this.viewer.corner = null;
    for (const button of this.tools) {
      const on = button.dataset.tool === tool;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
      if (on && focus) button.focus();
    }
    if (this.game.state) this.hint();
    say(`Clicks: ${TOOL_NAMES[tool]}`);
  }

  repaint() {
    for (const viewer of this.viewers) viewer.draw();
  }

  setOpacity(percent) {
    const value = Math.min(100, Math.max(0, percent));
    this.$("opacity").value = value;
    for (const viewer of this.viewers) viewer.opacity = value / 100;
    this.repaint();
    remember("opacity", String(value));
  }

  toggleMask() {
    const shown = !this.viewer.showMask;
    for (const viewer of this.viewers) viewer.showMask = shown;
    this.repaint();
    say(shown ? "Mask shown" : "Mask hidden");
  }

  async save(kind) {
    const { state } = this.game;
    if (!state) return;
    const button = this.$(`save-${kind}`);
    button.disabled = true;
    try {
      const blob = await fetchImage(`games/${state.game}/mask`, { kind });
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: FILES[kind] }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say("The mask is downloaded");
    } finally {
      this.enable();
    }
  }

  // input -----------------------------------------------------------------------------------------
  listen() {
    const { viewer, game } = this;
    game.addEventListener("busy", () => game.state && this.enable());
    game.addEventListener("again", ({ detail }) => this.guarded(() => this.again(detail)));
    viewer.addEventListener("prompt", ({ detail }) => {
      if (game.waiting.includes("propagate")) return;
      if (!this.setup.tools.includes(detail.tool)) showBanner(`${this.service.backbone} takes no such prompt.`);
      else this.act(detail.tool, detail.at);
    });
    viewer.addEventListener("nobox", () => {
      this.$("hint").textContent = "Drag to draw a box. To click, choose Add (P) or Remove (N).";
      say(this.$("hint").textContent);
    });
    viewer.addEventListener("cursor", () => {
      const [x, y] = viewer.cursor.map((v) => Math.round(100 * v));
      say(`${x} percent across, ${y} percent down`);
    });
    viewer.addEventListener("corner", () => say("First corner set. Move to the opposite one and press Enter."));
    viewer.addEventListener("view", () => {
      this.$("window").value = viewer.window;
      this.$("level").value = viewer.level;
    });
    const { tools } = this;
    for (const [i, button] of tools.entries()) {
      button.addEventListener("click", () => this.choose(button.dataset.tool));
      button.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        this.choose(tools[(i + by + tools.length) % tools.length].dataset.tool, true);
      });
    }
    for (const tool of ["undo", "clear", "stop"]) this.$(tool).addEventListener("click", () => this.act(tool));
    this.$("next").addEventListener("click", () => this.cases.step(1));
    this.$("random").addEventListener("click", () => this.cases.random());
    for (const kind of Object.keys(FILES)) this.$(`save-${kind}`).addEventListener("click", () => this.guarded(() => this.save(kind)));
    for (const id of ["window", "level"])
      this.$(id).addEventListener("input", () => viewer.setWindow(Number(this.$("window").value), Number(this.$("level").value)));
    this.$("opacity").addEventListener("input", () => this.setOpacity(Number(this.$("opacity").value)));
    this.$("zoom-in").addEventListener("click", () => viewer.zoomBy(1.4));
    this.$("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.4));
    this.$("zoom-fit").addEventListener("click", () => viewer.fit());
    this.$("view-reset").addEventListener("click", () => viewer.reset());
    this.$("truth").addEventListener("change", () => {
      for (const one of this.viewers) one.showTruth = this.$("truth").checked;
      this.repaint();
    });
    this.$("least").value = remembered("least", "0.5");
    this.$("least").addEventListener("change", () => remember("least", String(this.verdict().least_dice)));
  }

  announce(noun, step, more = "") {
    if (!step) return;
    const words = [`Step ${step.number}: ${TOOL_NAMES[step.tool]}`];
    if (!step.valid) words.push(step.error);
    if (more) words.push(more);
    if (step.dice !== undefined) words.push(`${noun} ${format(step.dice, 2)}`);
    if (this.game.state.done) words.push("The game is over.");
    say(words.join(". "));
  }
}
