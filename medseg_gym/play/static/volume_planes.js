// Two planes across the slices, with the mask and the line of the slice in view.

import { get } from "./api.js";
import { $, h } from "./dom.js";
import { COLOURS, Mask, bitmapOf, blobOf } from "./pixels.js";

const MOST = 190; // height on the screen

export class Planes {
  // onSlice(index): somebody has pointed at a slice
  constructor(onSlice) {
    this.onSlice = onSlice;
    this.at = [0.5, 0.5]; // fractions of a slice's width and height, where the planes are
    this.shown = [];
    this.asked = 0;
    this.opacity = 0.45;
    this.showMask = true;
    new ResizeObserver(() => this.paint()).observe($("vol-planes"));
  }

  open(depth) {
    this.depth = depth;
    this.at = [0.5, 0.5];
    this.asked++;
    this.shown = [];
    $("vol-planes").replaceChildren();
  }

  // Fetch the planes anew; many calls in a row ask once.
  refresh(game) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(game).catch(() => {}), 100);
  }

  async load(game) {
    const asked = ++this.asked;
    const { planes } = await get(`volumes/${game}/planes`, { x: this.at[0], y: this.at[1] });
    const made = await Promise.all(planes.map(async (plane) => ({
      ...plane,
      bitmap: await bitmapOf(blobOf(plane.image)),
      mask: await Mask.read(plane.mask, COLOURS.mask),
    })));
    if (asked !== this.asked) return;
    if (this.shown.length !== made.length) {
      this.canvases = made.map((plane) => this.canvas(plane));
      $("vol-planes").replaceChildren(...made.map((plane, i) =>
        h("figure", {}, this.canvases[i], h("figcaption", { className: "muted" }, plane.name))));
    }
    this.shown = made;
    this.paint();
  }

  canvas(plane) {
    const canvas = h("canvas", { className: "plane" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${plane.name} plane with the mask and the slice in view`);
    const point = (event) => {
      const frame = canvas.getBoundingClientRect();
      const part = plane.along === "right"
        ? (event.clientX - frame.left) / frame.width
        : (event.clientY - frame.top) / frame.height;
      const up = plane.along === "up" ? 1 - part : part;
      this.onSlice(Math.min(this.depth - 1, Math.max(0, Math.floor(up * this.depth))));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      point(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && point(event));
    return canvas;
  }

  line(index) {
    this.index = index;
    this.paint();
  }

  paint() {
    const ratio = globalThis.devicePixelRatio || 1;
    const room = $("vol-planes").clientWidth;
    for (const [i, { bitmap, mask, aspect, along }] of this.shown.entries()) {
      const shape = (bitmap.height * aspect) / bitmap.width;
      const width = Math.max(40, Math.min(room, MOST / shape));
      const height = Math.max(12, Math.min(MOST, width * shape));
      const canvas = this.canvases[i];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.imageSmoothingQuality = "high";
      context.drawImage(bitmap, 0, 0, width, height);
      if (mask && this.showMask) {
        context.imageSmoothingEnabled = false;
        context.globalAlpha = Math.min(1, this.opacity + 0.25);
        context.drawImage(mask.area, 0, 0, width, height);
        context.globalAlpha = 1;
      }
      const part = (this.index + 0.5) / this.depth;
      const place = along === "up" ? 1 - part : part;
      for (const [thick, colour] of [
        [3, "rgb(0 0 0 / 60%)"],
        [1.5, COLOURS.box],
      ]) {
        context.lineWidth = thick;
        context.strokeStyle = colour;
        context.beginPath();
        if (along === "right") {
          context.moveTo(place * width, 0);
          context.lineTo(place * width, height);
        } else {
          context.moveTo(0, place * height);
          context.lineTo(width, place * height);
        }
        context.stroke();
      }
    }
  }
}
