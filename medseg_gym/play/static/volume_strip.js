// The slider of slices, and under it on which of them there are masks and prompts.

import { $, s } from "./dom.js";

export class Strip {
  // prefix: of the ids; onSlice(index)
  constructor(prefix, onSlice) {
    this.prefix = prefix;
    this.range = $(`${prefix}slice`);
    this.range.addEventListener("input", () => onSlice(Number(this.range.value)));
  }

  // slices: what there is on each; truth: slices with some of it, if that may be shown
  draw(depth, slices, truth, index) {
    this.range.max = depth - 1;
    this.range.value = index;
    const half = `(100% - 16px) * ${0.5 / depth}`; // the thumb stands above the middle of its slice
    this.range.style.margin = `0 calc(${half})`;
    this.range.style.width = `calc(100% - 2 * ${half})`;
    const here = slices[index];
    const parts = [`Slice ${index + 1} of ${depth}`];
    if (here?.prompted) parts.push("with prompts");
    else if (here?.pixels) parts.push("with a mask");
    this.range.setAttribute("aria-valuetext", parts.join(", "));
    $(`${this.prefix}you-label`).textContent = `${index + 1} / ${depth}`;
    const marked = Object.entries(slices).map(([at, one]) => ({ at: Number(at), ...one }));
    const masked = marked.filter((one) => one.pixels).map((one) => one.at);
    $(`${this.prefix}extent`).textContent = masked.length ? extent(masked) : "No mask yet";
    const most = Math.max(1, ...marked.map((one) => one.pixels));
    const bars = marked.filter((one) => one.pixels).map(({ at, pixels }) => {
      const height = 4 + 8 * Math.sqrt(pixels / most);
      return s("rect", { class: "mask", x: at + 0.06, width: 0.88, y: 20 - height, height });
    });
    const outline = (truth ?? []).map((at) => s("rect", { class: "truth", x: at, width: 1, y: 21, height: 3 }));
    const marks = marked.filter((one) => one.prompted).map(({ at }) =>
      s("rect", { class: "prompted", x: at + 0.06, width: 0.88, y: 1, height: 4 }));
    const now = s("rect", { class: "now", x: index + 0.5 - depth / 500, width: depth / 250, y: 0, height: 24 });
    $(`${this.prefix}strip`).replaceChildren(
      s("svg", { viewBox: `0 0 ${depth} 24`, preserveAspectRatio: "none", role: "img", "aria-label": label(masked, marked) },
        s("rect", { class: "ground", x: 0, width: depth, y: 19, height: 1 }), ...bars, ...outline, ...marks, now));
  }
}

function extent(masked) {
  const [first, last] = [masked[0] + 1, masked.at(-1) + 1];
  if (first === last) return `Mask on slice ${first}`;
  const whole = last - first + 1 === masked.length ? "" : ` (${masked.length} of them)`;
  return `Mask on slices ${first}–${last}${whole}`;
}

function label(masked, marked) {
  const prompted = marked.filter((one) => one.prompted).map((one) => one.at + 1);
  const words = [masked.length ? extent(masked) : "No mask"];
  if (prompted.length) words.push(`prompts on ${prompted.join(", ")}`);
  return words.join("; ");
}
