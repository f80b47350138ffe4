// Entry point: connects the modules of the page.

import { Silent, get } from "./api.js";
import { showBanner } from "./banner.js";
import { Beside } from "./beside.js";
import { Board } from "./board.js";
import { Cases } from "./cases.js";
import { drawCurve } from "./curve.js";
import { $, TOOL_NAMES, format, h, remember, remembered, say } from "./dom.js";
import { Game, coordinates } from "./game.js";
import { listen } from "./keys.js";
import { Recordings } from "./recordings.js";
import { listSteps } from "./steps.js";
import { Viewer } from "./viewer.js";
import { Volumes } from "./volume.js";

const viewer = new Viewer($("you-canvas"), { acts: true });
const game = new Game(viewer);
const beside = new Beside(viewer, () => draw());
const cases = new Cases((picked) => guarded(() => begin(picked)), dropped);
const recordings = new Recordings();
const board = new Board(who);
const volumes = new Volumes(() => setup, () => who().exam);
let setup = null;
let view = "play";

function who() {
  return { player: $("player").value, exam: $("exam").checked };
}

function report(error) {
  if (error instanceof Silent && game.state) game.wait();
  else showBanner(error.message);
}

async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    report(error);
  }
}

globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  report(event.reason);
});

// What is dropped goes to the volumes if it is a scan, or if they are in view.
function dropped(transfer) {
  if (!volumes.files.limits || (view !== "volumes" && !volumes.files.looksLikeScan(transfer))) return false;
  guarded(() => volumes.files.take(transfer));
  if (view !== "volumes") open("volumes");
  return true;
}

async function begin(picked) {
  if (await game.begin(picked, who())) await cases.show({ place: game.state.place, index: game.state.index });
}

// display ----------------------------------------------------------------------------------------
const KINDS = { box: "box", positive_point: "point", negative_point: "point" };

function facts(state) {
  const one = state.case;
  const size = `${one.width} × ${one.height}`;
  const details = [one.modality, one.synthetic ? "synthetic image" : "", cases.titleOf(state.place), one.key, size];
  if (!one.truth_known) details.push("no truth: no Dice");
  if (state.try > 1) details.push(`try ${state.try}`);
  return details.filter(Boolean).join(" · ");
}

function draw() {
  const { state } = game;
  if (!state) return;
  const scored = state.dice !== undefined;
  const last = state.steps.at(-1);
  $("task").replaceChildren("Outline the ", h("b", {}, state.case.target));
  $("facts").textContent = facts(state);
  $("dice").textContent = scored ? format(state.dice) : "–";
  const hidden = state.case.truth_known ? "hidden until you are done" : "no truth, no Dice";
  $("dice-label").textContent = scored ? "Dice" : `Dice: ${hidden}`;
  const details = [`${state.steps_left} of ${state.max_steps} steps left`];
  if (scored) details.push(`return ${format(state.return)}`);
  if (state.done) details[0] = state.stopped ? `done after ${state.steps.length} steps` : "all steps are used up";
  $("score-details").textContent = details.join(" · ");
  const used = Math.min(state.steps.length, state.max_steps);
  $("pips").setAttribute("aria-label", `${used} of ${state.max_steps} steps used`);
  $("pips").replaceChildren(
    ...Array.from({ length: state.max_steps }, (_, i) =>
      h("span", { className: i < used ? (state.steps[i].valid ? "used" : "used bad") : "" })));
  const mine = { name: "You", kind: "you", start: state.start_dice, steps: state.steps };
  const lines = [scored ? mine : { name: "You" }, beside.curve()].filter(Boolean);
  drawCurve($("curve"), lines, state.max_steps, scored ? "" : hidden);
  listSteps($("steps"), state.steps);
  const kept = state.recorded;
  $("kept").textContent = kept
    ? `${kept} of ${state.steps.length} recorded in ${setup.record}/${setup.store}`
    : "Every step is recorded as you take it.";
  $("truth-label").hidden = !viewer.truth;
  beside.viewer.truth = viewer.truth; // once you are done, on both
  beside.viewer.draw();
  $("stop").hidden = state.done;
  $("next").hidden = !state.done;
  beside.allow(state);
  enable();
  hint(last);
}

function enable() {
  const { state } = game;
  const closed = game.over || game.lost;
  for (const tool of document.querySelectorAll("#play .tool"))
    tool.disabled = closed || !setup.tools.includes(tool.dataset.tool);
  $("undo").disabled = closed || !state.steps.some((step) => step.valid);
  $("clear").disabled = closed || (!state.state.box && !state.state.points.length);
  $("stop").disabled = closed;
  $("accepted").disabled = closed;
  $("you-pane").classList.toggle("busy", game.waiting > 0);
  $("you-pane").setAttribute("aria-busy", String(game.beginning > 0));
  $("you-pane").classList.toggle("closed", closed);
}

function hint(last) {
  const { state } = game;
  let text;
  if (state.done) {
    text = state.case.truth_known ? "The orange line is the truth. Watch a policy on the same case, or go on." : "Recorded. Go on with the next image.";
    if ($("accepted").checked && state.accepted === false) text = `Dice 0 is no good example: not used for training. ${text}`;
  } else if (last && !last.valid) text = `That changed nothing and used a step: ${last.error}.`;
  else if (!state.steps.length) text = "Drag a box around the target. Then click to add what is missing, right-click to take away what is too much.";
  else text = "Add or remove with clicks, or draw a better box. Done when the green area is right.";
  const untrained = setup.tools.filter((t) => KINDS[t] && !setup.trained.includes(KINDS[t]));
  if (untrained.includes(viewer.tool)) text += ` ${setup.backbone} was not trained for this kind of prompt.`;
  $("hint").textContent = text;
}

function choose(tool, focus = false) {
  if (!setup.tools.includes(tool)) return;
  viewer.tool = tool;
  viewer.corner = null;
  for (const button of document.querySelectorAll("#play .tool")) {
    const on = button.dataset.tool === tool;
    button.setAttribute("aria-checked", String(on));
    button.tabIndex = on ? 0 : -1;
    if (on && focus) button.focus();
  }
  if (game.state) hint(game.state.steps.at(-1));
  say(`Clicks: ${TOOL_NAMES[tool]}`);
}

game.addEventListener("begin", () => {
  beside.close();
  $("accepted").checked = false;
  const one = game.state.case;
  viewer.canvas.setAttribute("aria-label",
    `Image, ${one.width} by ${one.height}. Outline the ${one.target}. Arrow keys move the cursor, Enter places the prompt.`);
  for (const id of ["window", "level"]) $(id).disabled = !viewer.image.grey;
  say(`New case: outline the ${one.target}`);
});
game.addEventListener("change", (event) => {
  draw();
  const step = event.detail;
  if (!step) return;
  const words = [`Step ${step.number}: ${TOOL_NAMES[step.tool]}`];
  if (!step.valid) words.push(step.error);
  if (step.dice !== undefined) words.push(`Dice ${format(step.dice, 2)}`);
  if (game.state.done) words.push("The game is over.");
  say(words.join(". "));
});
game.addEventListener("busy", () => game.state && enable());
game.addEventListener("back", () => guarded(load));
game.addEventListener("again", (event) =>
  guarded(async () => {
    const { place, case: one } = game.state;
    await begin({ place, key: one.key });
    for (const step of event.detail ?? []) await game.step(step.tool, coordinates(step.prompt), $("accepted").checked);
  }));

// input ------------------------------------------------------------------------------------------
const act = (tool, at) => game.step(tool, at, $("accepted").checked);
viewer.addEventListener("prompt", ({ detail }) => {
  if (!setup.tools.includes(detail.tool)) return showBanner(`${setup.backbone} takes no such prompt.`);
  act(detail.tool, detail.at);
});
viewer.addEventListener("nobox", () => {
  $("hint").textContent = "Drag to draw a box. To click, choose Add (P) or Remove (N).";
  say($("hint").textContent);
});
viewer.addEventListener("cursor", () => {
  const [x, y] = viewer.cursor.map((v) => Math.round(100 * v));
  say(`${x} percent across, ${y} percent down`);
});
viewer.addEventListener("corner", () => say("First corner set. Move to the opposite one and press Enter."));
viewer.addEventListener("view", () => {
  $("window").value = viewer.window;
  $("level").value = viewer.level;
});
const tools = [...document.querySelectorAll("#play .tool")];
for (const [i, button] of tools.entries()) {
  button.addEventListener("click", () => choose(button.dataset.tool));
  button.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    choose(tools[(i + by + tools.length) % tools.length].dataset.tool, true);
  });
}
const press = (id) => () => {
  const button = $(view === "volumes" ? `vol-${id}` : id);
  if (button && !button.disabled && !button.hidden) button.click();
};
$("undo").addEventListener("click", () => act("undo"));
$("clear").addEventListener("click", () => act("clear"));
$("stop").addEventListener("click", () => act("stop"));
$("next").addEventListener("click", () => cases.step(1));

for (const id of ["window", "level"])
  $(id).addEventListener("input", () => viewer.setWindow(Number($("window").value), Number($("level").value)));
function setOpacity(percent) {
  const value = Math.min(100, Math.max(0, percent));
  $("opacity").value = value;
  viewer.opacity = beside.viewer.opacity = value / 100;
  viewer.draw();
  beside.viewer.draw();
  remember("opacity", String(value));
}
$("opacity").addEventListener("input", () => setOpacity(Number($("opacity").value)));
$("zoom-in").addEventListener("click", () => viewer.zoomBy(1.4));
$("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.4));
$("zoom-fit").addEventListener("click", () => viewer.fit());
$("view-reset").addEventListener("click", () => viewer.reset());
$("truth").addEventListener("change", () => {
  viewer.showTruth = beside.viewer.showTruth = $("truth").checked;
  viewer.draw();
  beside.viewer.draw();
});
function toggleMask() {
  viewer.showMask = beside.viewer.showMask = !viewer.showMask;
  viewer.draw();
  beside.viewer.draw();
  say(viewer.showMask ? "Mask shown" : "Mask hidden");
}

// Another player, or an exam: from the next game on; at once where nothing has happened yet. The game
// stays the same one: a new one would throw away the click that made the field lose the focus.
function changeWho() {
  remember("player", $("player").value);
  remember("exam", $("exam").checked ? "on" : "off");
  if (view === "board") guarded(() => board.draw());
  const { state } = game;
  if (state && !state.steps.length && !game.waiting) guarded(() => game.rename(who()));
  else say("From the next case on");
}
$("player").addEventListener("change", changeWho);
$("exam").addEventListener("change", changeWho);

// views ------------------------------------------------------------------------------------------
function open(name) {
  view = name;
  for (const one of ["play", "volumes", "recordings", "board"]) $(one).hidden = one !== name;
  for (const tab of document.querySelectorAll(".tab")) {
    if (tab.dataset.view === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  if (name === "volumes") guarded(() => volumes.enter());
  if (name === "recordings") guarded(() => recordings.list());
  if (name === "board") guarded(() => board.draw());
  beside.player.pause();
  recordings.player.pause();
}
for (const tab of document.querySelectorAll(".tab")) tab.addEventListener("click", () => open(tab.dataset.view));

const THEMES = ["auto", "light", "dark"];
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  remember("theme", name);
}
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "auto";
  setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
$("help-open").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());

const player = () => (view === "recordings" ? recordings.player : beside.player);
const inView = (image, volume) => () => (view === "volumes" ? volume() : image());
const tool = (name) => inView(() => choose(name), () => volumes.choose(name));
const opacity = (by) =>
  inView(
    () => setOpacity(Number($("opacity").value) + by),
    () => volumes.setOpacity(Number($("vol-opacity").value) + by),
  );
const canvas = () => ({ volumes: volumes.viewer, recordings: recordings.viewer })[view] ?? viewer;
listen(
  [
    ["b", "draw boxes", tool("box")],
    ["p", "clicks add (positive)", tool("positive_point")],
    ["n", "clicks remove (negative)", tool("negative_point")],
    ["a", "volumes: propagate through all slices", () => view === "volumes" && press("propagate")()],
    ["u", "undo", press("undo")],
    ["c", "clear", press("clear")],
    ["s", "done: accept the mask", press("stop")],
    [".", "next case", inView(() => cases.step(1), () => volumes.cases.step(1))],
    [",", "case before", inView(() => cases.step(-1), () => volumes.cases.step(-1))],
    ["r", "a case at random", press("random")],
    ["g", "go to the image", () => canvas().canvas.focus()],
    ["m", "mask on or off", inView(toggleMask, () => volumes.toggleMask())],
    ["t", "truth on or off, once you are done", () => $(view === "volumes" ? "vol-truth-label" : "truth-label").hidden || press("truth")()],
    ["[", "mask fainter", opacity(-10)],
    ["]", "mask stronger", opacity(10)],
    ["i", "zoom in", press("zoom-in")],
    ["o", "zoom out", press("zoom-out")],
    ["f", "fit", press("zoom-fit")],
    ["w", "watch the policy", press("watch")],
    ["j", "policy or recording: step back", () => (player().pause(), player().show(player().at - 1), player().tell())],
    ["k", "policy or recording: play or pause", () => player().playOrPause()],
    ["l", "policy or recording: step on", () => (player().pause(), player().show(player().at + 1), player().tell())],
    ["?", "this list", () => $("help-open").click()],
  ],
  (key) => view === "play" || (view === "volumes" ? !"jklw".includes(key) : "jklg?".includes(key)),
);

// begin ------------------------------------------------------------------------------------------
async function load() {
  setup = await get("setup");
  cases.setPlaces(setup.places, game.state?.place ?? remembered("place", ""));
  beside.setPolicies(setup.policies);
  board.setUp(setup);
  await volumes.load();
  $("foot").textContent = `Segmenter: ${setup.backbone}. Records in ${setup.record}/${setup.store}.`;
}

async function start() {
  $("player").value = remembered("player", "");
  $("exam").checked = remembered("exam", "off") === "on";
  setTheme(remembered("theme", "auto"));
  await load();
  choose(setup.tools[0]);
  setOpacity(Number(remembered("opacity", "45")));
  if (!setup.places.length) {
    $("task").textContent = "Open an image of your own";
    open("volumes");
    return;
  }
  if (await game.resume()) {
    await cases.turn(0);
    await cases.show({ place: game.state.place, index: game.state.index });
  } else await cases.open(cases.place);
}
guarded(start);
