// Entry point: connects the modules of the page.

import { Silent, get } from "./api.js";
import { showBanner } from "./banner.js";
import { Board } from "./board.js";
import { $, remember, remembered, say } from "./dom.js";
import { Images } from "./image_view.js";
import { listen } from "./keys.js";
import { Recordings } from "./recordings.js";
import { Volumes } from "./volume.js";

const images = new Images(who, dropped);
const volumes = new Volumes(who, load);
const recordings = new Recordings();
const board = new Board(who);
let view = "play";

function who() {
  return { player: $("player").value, exam: $("exam").checked };
}

// The view in which somebody plays; null in the others.
const played = () => ({ play: images, volumes })[view] ?? null;

function report(error) {
  if (error instanceof Silent && images.game.state) images.game.wait();
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

for (const { game } of [images, volumes]) game.addEventListener("back", () => guarded(load));

// Another player, or an exam.
function changeWho() {
  remember("player", $("player").value);
  remember("exam", $("exam").checked ? "on" : "off");
  if (view === "board") guarded(() => board.draw());
  images.changeWho();
  volumes.changeWho();
}
$("player").addEventListener("change", changeWho);
$("exam").addEventListener("change", changeWho);

// Both views show the same Dice below which a game is no good example.
for (const [one, other] of [[images, volumes], [volumes, images]])
  one.$("least").addEventListener("change", () => (other.$("least").value = one.$("least").value));

// views ------------------------------------------------------------------------------------------
function open(name) {
  view = name;
  for (const one of ["play", "volumes", "recordings", "board"]) $(one).hidden = one !== name;
  for (const tab of document.querySelectorAll(".tab")) {
    if (tab.dataset.view === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  if (name === "volumes") volumes.guarded(() => volumes.enter());
  if (name === "recordings") guarded(() => recordings.list());
  if (name === "board") guarded(() => board.draw());
  for (const player of [images.beside.player, volumes.beside.player, recordings.player]) player.pause();
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

const press = (id) => () => {
  const button = played()?.$(id);
  if (button && !button.disabled && !button.hidden) button.click();
};
const playing = (act) => () => played() && act(played());
const player = () => (played()?.beside ?? recordings).player;
const showStep = (by) => () => {
  const { at } = player();
  player().pause();
  player().show(at + by);
  player().tell();
};
listen(
  [
    ["b", "draw boxes", playing((one) => one.choose("box"))],
    ["p", "clicks add (positive)", playing((one) => one.choose("positive_point"))],
    ["n", "clicks remove (negative)", playing((one) => one.choose("negative_point"))],
    ["a", "volumes: propagate through all slices", press("propagate")],
    ["u", "undo", press("undo")],
    ["c", "clear", press("clear")],
    ["s", "done: accept the mask", press("stop")],
    [".", "next case", playing((one) => one.cases.step(1))],
    [",", "case before", playing((one) => one.cases.step(-1))],
    ["r", "a case at random", press("random")],
    ["g", "go to the image", () => (played() ?? recordings).viewer.canvas.focus()],
    ["m", "mask on or off", playing((one) => one.toggleMask())],
    ["t", "truth on or off, once you are done", playing((one) => one.$("truth-label").hidden || one.$("truth").click())],
    ["[", "mask fainter", playing((one) => one.setOpacity(Number(one.$("opacity").value) - 10))],
    ["]", "mask stronger", playing((one) => one.setOpacity(Number(one.$("opacity").value) + 10))],
    ["i", "zoom in", press("zoom-in")],
    ["o", "zoom out", press("zoom-out")],
    ["f", "fit", press("zoom-fit")],
    ["w", "watch the policy", press("watch")],
    ["j", "policy or recording: step back", showStep(-1)],
    ["k", "policy or recording: play or pause", () => player().playOrPause()],
    ["l", "policy or recording: step on", showStep(1)],
    ["?", "this list", () => $("help-open").click()],
  ],
  (key) => played() !== null || "jklg?".includes(key),
);

// begin ------------------------------------------------------------------------------------------
// place: of volumes, to be chosen; null leaves what is.
async function load(place = null) {
  const setup = await get("setup");
  images.setUp(setup, setup.images);
  volumes.setUp(setup, setup.volumes, place);
  board.setUp(setup);
  $("foot").textContent = `Segmenter: ${setup.backbone}. Records in ${setup.record}/${setup.store}.`;
  return setup;
}

async function start() {
  $("player").value = remembered("player", "");
  $("exam").checked = remembered("exam", "off") === "on";
  setTheme(remembered("theme", "auto"));
  const setup = await load();
  images.choose(setup.images.tools[0]);
  for (const one of [images, volumes]) one.setOpacity(Number(remembered("opacity", "45")));
  if (!setup.images.places.length) {
    $("task").textContent = "Open an image of your own";
    open("volumes");
    return;
  }
  if (await images.game.resume()) {
    await images.cases.turn(0);
    await images.cases.show(images.game.state);
  } else await images.cases.open(images.cases.place);
}
guarded(start);
