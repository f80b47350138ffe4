// Plays an episode step by step on a viewer: policies beside you, and recordings.

import { TOOL_NAMES, format, h, s, say } from "./dom.js";

const PACE = 900; // milliseconds a step

const ICONS = { back: "M4 3v10M13 3l-7 5 7 5z", play: "M4 2.5l9 5.5-9 5.5z", pause: "M4.5 3v10M11.5 3v10", on: "M12 3v10M3 3l7 5-7 5z" };
const icon = (name) => s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));

export class Player {
  // screen: see screens.js; onShow(step number): called whenever another step is shown.
  constructor(place, screen, onShow) {
    this.screen = screen;
    this.onShow = onShow;
    this.steps = [];
    this.ready = [];
    this.at = 0;
    this.timer = null;
    const button = (label, name, act) =>
      h("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, icon(name));
    this.toggle = button("Play (K)", "play", () => this.playOrPause());
    this.range = h("input", {
      type: "range", min: 0, max: 0, value: 0, "aria-label": "Step",
      on: { input: () => (this.pause(), this.show(Number(this.range.value))) },
    });
    this.where = h("output", { className: "where" });
    place.replaceChildren(
      h("div", { className: "player", role: "group", "aria-label": "Playback" },
        button("Step back (J)", "back", () => (this.pause(), this.show(this.at - 1))),
        this.toggle,
        button("Step on (L)", "on", () => (this.pause(), this.show(this.at + 1))),
        this.range,
        this.where),
    );
  }

  begin() {
    this.pause();
    this.steps = [];
    this.ready = [];
    this.at = 0;
    this.screen.show(null);
    this.update();
  }

  // Add steps that have come; at the end of what was there, playing goes on by itself.
  async add(steps) {
    const ready = await Promise.all(steps.map((step) => this.screen.read(step)));
    this.steps.push(...steps);
    this.ready.push(...ready);
    this.update();
  }

  show(number) {
    this.at = Math.max(0, Math.min(number, this.steps.length));
    const step = this.steps[this.at - 1];
    this.screen.show(step, this.ready[this.at - 1]);
    this.update();
    this.onShow(this.at);
  }

  update() {
    this.range.max = this.steps.length;
    this.range.value = this.at;
    const step = this.steps[this.at - 1];
    let text = "start";
    if (step) {
      text = `${this.at}. ${TOOL_NAMES[step.tool]}`;
      if (Number.isInteger(step.slice)) text += `, slice ${step.slice + 1}`;
      if (!step.valid) text += " (invalid)";
      if (step.dice !== undefined) text += ` · Dice ${format(step.dice)}`;
    }
    this.where.textContent = text;
    this.range.setAttribute("aria-valuetext", text);
  }

  playOrPause() {
    if (this.timer) this.pause();
    else this.play();
  }

  play(fromStart = false) {
    if (fromStart || this.at >= this.steps.length) this.show(0);
    this.name("Pause (K)", "pause");
    clearInterval(this.timer);
    this.timer = setInterval(() => {
      if (this.at < this.steps.length) this.show(this.at + 1);
      else if (this.ended !== false) this.pause();
    }, PACE);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.name("Play (K)", "play");
  }

  name(label, drawing) {
    this.toggle.replaceChildren(icon(drawing));
    this.toggle.setAttribute("aria-label", label);
    this.toggle.title = label;
  }

  tell() {
    say(this.where.textContent);
  }
}
