// Elements without markup: text never becomes HTML, so names cannot carry a script.

export const $ = (id) => document.getElementById(id);

// Cards that several views share are written once, as templates; a copy's ids begin with the prefix of
// its view. This runs before anything asks for an element: every other module needs this one.
const NAMED = ["id", "for", "aria-labelledby"];
for (const place of document.querySelectorAll("[data-card]")) {
  const { card, prefix, title, own } = place.dataset;
  const copy = $(card).content.cloneNode(true);
  if (title) copy.querySelector("h2").textContent = title;
  if (own) copy.querySelector("#own-open").textContent = own;
  for (const name of NAMED)
    for (const element of copy.querySelectorAll(`[${name}]`)) element.setAttribute(name, prefix + element.getAttribute(name));
  place.replaceWith(copy);
}

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let last = "";

// Announce a text to screen readers; the same text twice is announced twice.
export function say(text) {
  last = text === last ? `${text}\u00a0` : text;
  $("announcement").textContent = last;
}

export function remembered(name, fallback) {
  try {
    return localStorage.getItem(`medseg.${name}`) ?? fallback;
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`medseg.${name}`, value);
  } catch {
    // a browser without storage forgets
  }
}

export const format = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");

export const TOOL_NAMES = {
  box: "box",
  positive_point: "add",
  negative_point: "remove",
  propagate: "propagate",
  look: "look",
  undo: "undo",
  clear: "clear",
  stop: "done",
  "": "unreadable",
};
