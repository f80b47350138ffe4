// A canvas with an image, its mask and prompts; zoom, pan, window and level; mouse and keys.

import { COLOURS, Windowed } from "./pixels.js";

const CLICK = 5; // pixels of the screen that a click may wander

export class Viewer extends EventTarget {
  constructor(canvas, { acts = false } = {}) {
    super();
    this.canvas = canvas;
    this.acts = acts; // people can prompt here
    this.image = null;
    this.mask = this.truth = this.box = null;
    this.points = [];
    this.showMask = this.showTruth = true;
    this.opacity = 0.45;
    this.window = 255;
    this.level = 127.5;
    this.zoom = 1; // relative to fitting
    this.centre = [0.5, 0.5];
    this.cursor = null; // fractions; shown while keys are used
    this.corner = null; // first corner of a box made with keys
    this.drag = null;
    this.tool = "box";
    this.pixel = [1, 1]; // width and height of an image's pixel, as they are shown
    this.partner = null; // follows zoom, pan, window and level
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  setImage(bitmap) {
    this.image = new Windowed(bitmap);
    this.reset();
  }

  setState({ mask = null, box = null, points = [] }) {
    this.mask = mask;
    this.box = box;
    this.points = points;
    this.draw();
  }

  blank() {
    this.image = null;
    this.truth = null;
    this.setState({});
  }

  reset() {
    this.window = 255;
    this.level = 127.5;
    this.corner = this.cursor = this.drag = null;
    this.image?.show(this.window, this.level);
    this.fit();
    this.changed();
  }

  fit() {
    this.zoom = 1;
    this.centre = [0.5, 0.5];
    this.changed();
  }

  setWindow(window, level) {
    this.window = Math.min(255, Math.max(2, window));
    this.level = Math.min(255, Math.max(0, level));
    if (this.image?.grey) this.image.show(this.window, this.level);
    this.changed();
  }

  zoomBy(factor, at = null) {
    const before = at && this.toFraction(at);
    this.zoom = Math.min(40, Math.max(1, this.zoom * factor));
    if (before) {
      const after = this.toFraction(at);
      this.centre = this.centre.map((c, i) => c + before[i] - after[i]);
    }
    this.changed();
  }

  changed() {
    const slack = 0.5 / this.zoom;
    this.centre = this.centre.map((c) => Math.min(1 - slack, Math.max(slack, c)));
    this.draw();
    this.dispatchEvent(new Event("view"));
    if (this.partner?.image && this.image) {
      const other = this.partner;
      const turned = other.window !== this.window || other.level !== this.level;
      Object.assign(other, { zoom: this.zoom, centre: [...this.centre], window: this.window, level: this.level });
      if (turned && other.image.grey) other.image.show(other.window, other.level);
      other.draw();
    }
  }

  // geometry ------------------------------------------------------------------------------------
  resize() {
    const ratio = globalThis.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    this.draw();
  }

  frame() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const [iw, ih] = this.image ? [this.image.width * this.pixel[0], this.image.height * this.pixel[1]] : [1, 1];
    const scale = Math.min(w / iw, h / ih) * this.zoom;
    const centre = this.zoom > 1 ? this.centre : [0.5, 0.5];
    return { scale, x: w / 2 - centre[0] * iw * scale, y: h / 2 - centre[1] * ih * scale, iw, ih };
  }

  toFraction([x, y]) {
    const f = this.frame();
    return [(x - f.x) / (f.iw * f.scale), (y - f.y) / (f.ih * f.scale)];
  }

  toScreen([fx, fy]) {
    const f = this.frame();
    return [f.x + fx * f.iw * f.scale, f.y + fy * f.ih * f.scale];
  }

  // drawing -------------------------------------------------------------------------------------
  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  paint() {
    const context = this.canvas.getContext("2d");
    const ratio = globalThis.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    if (!this.image) return;
    const f = this.frame();
    const place = [f.x, f.y, f.iw * f.scale, f.ih * f.scale];
    context.imageSmoothingEnabled = f.scale < 6;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image.canvas, ...place);
    if (this.mask && this.showMask) {
      context.imageSmoothingEnabled = false;
      context.globalAlpha = this.opacity;
      context.drawImage(this.mask.area, ...place);
      context.globalAlpha = 1;
      this.outline(context, this.mask, f, 1.5);
    }
    if (this.truth && this.showTruth) this.outline(context, this.truth, f, 2);
    if (this.box) this.rectangle(context, this.box, false);
    for (const point of this.points) this.marker(context, point);
    if (this.drag?.box) this.rectangle(context, this.drag.box, true);
    if (this.corner && this.cursor) this.rectangle(context, [...this.corner, ...this.cursor], true);
    if (this.cursor) this.crosshair(context);
  }

  outline(context, mask, f, width) {
    context.save();
    context.translate(f.x, f.y);
    const grid = new DOMMatrix().scaleSelf(f.scale * this.pixel[0], f.scale * this.pixel[1]);
    const edges = new Path2D();
    edges.addPath(mask.edges, grid); // scaled before it is stroked: a line is as wide in x as in y
    context.lineWidth = width;
    context.strokeStyle = mask.colour;
    context.stroke(edges);
    context.restore();
  }

  rectangle(context, [x1, y1, x2, y2], dashed) {
    const [[a, b], [c, d]] = [this.toScreen([x1, y1]), this.toScreen([x2, y2])];
    context.setLineDash(dashed ? [6, 4] : []);
    for (const [width, colour] of [
      [4, "rgb(0 0 0 / 45%)"],
      [2, COLOURS.box],
    ]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(Math.min(a, c), Math.min(b, d), Math.abs(c - a), Math.abs(d - b));
    }
    context.setLineDash([]);
  }

  marker(context, [fx, fy, positive]) {
    const [x, y] = this.toScreen([fx, fy]);
    context.beginPath();
    context.arc(x, y, 6.5, 0, 2 * Math.PI);
    context.fillStyle = positive ? COLOURS.positive : COLOURS.negative;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = "white";
    context.stroke();
    context.beginPath(); // plus or minus: colour is not all that tells them apart
    context.moveTo(x - 3.5, y);
    context.lineTo(x + 3.5, y);
    if (positive) {
      context.moveTo(x, y - 3.5);
      context.lineTo(x, y + 3.5);
    }
    context.stroke();
  }

  crosshair(context) {
    const [x, y] = this.toScreen(this.cursor);
    for (const [width, colour] of [
      [4, "rgb(0 0 0 / 60%)"],
      [1.5, "white"],
    ]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.beginPath();
      for (const [dx, dy] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        context.moveTo(x + 5 * dx, y + 5 * dy);
        context.lineTo(x + 17 * dx, y + 17 * dy);
      }
      context.stroke();
    }
  }

  // acting --------------------------------------------------------------------------------------
  prompt(tool, at) {
    const inside = at.map((v) => Math.min(1, Math.max(0, v)));
    this.dispatchEvent(new CustomEvent("prompt", { detail: { tool, at: inside } }));
  }

  listen() {
    const canvas = this.canvas;
    const where = (event) => {
      const frame = canvas.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.image) return;
      canvas.focus({ preventScroll: true });
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      const pan = event.button === 1 || event.shiftKey || (event.button === 0 && !this.acts);
      const kind = pan ? "pan" : event.button === 2 ? "window" : "act";
      const from = where(event);
      this.drag = { kind, from, last: from, moved: false, first: this.toFraction(from) };
      this.cursor = this.corner = null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const drag = this.drag;
      if (!drag) return;
      const now = where(event);
      drag.moved ||= Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]) > CLICK;
      if (!drag.moved) return;
      const step = [now[0] - drag.last[0], now[1] - drag.last[1]];
      drag.last = now;
      if (drag.kind === "pan") {
        const f = this.frame();
        this.centre = [this.centre[0] - step[0] / (f.iw * f.scale), this.centre[1] - step[1] / (f.ih * f.scale)];
        this.changed();
      } else if (drag.kind === "window") {
        this.setWindow(this.window + step[0], this.level - step[1]);
      } else if (this.acts) {
        drag.box = [...drag.first, ...this.toFraction(now)].map((v) => Math.min(1, Math.max(0, v)));
        this.draw();
      }
    });
    canvas.addEventListener("pointerup", () => {
      const drag = this.drag;
      this.drag = null;
      if (!drag) return;
      const hit = drag.first.every((v) => v >= 0 && v <= 1);
      if (this.acts && drag.kind === "act" && drag.box) this.prompt("box", drag.box);
      else if (this.acts && !drag.moved && hit && drag.kind === "window") this.prompt("negative_point", drag.first);
      else if (this.acts && !drag.moved && hit && drag.kind === "act") {
        if (this.tool === "box") this.dispatchEvent(new Event("nobox"));
        else this.prompt(this.tool, drag.first);
      }
      this.draw();
    });
    canvas.addEventListener("pointercancel", () => {
      this.drag = null;
      this.draw();
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (this.image) this.wheel(event, where(event));
      },
      { passive: false },
    );
    canvas.addEventListener("blur", () => {
      this.cursor = this.corner = null;
      this.draw();
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  wheel(event, at) {
    // Only once the image has the focus: until then the wheel scrolls the page.
    if (document.activeElement !== this.canvas && !event.ctrlKey) return;
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 400), at);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.image || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      event.preventDefault();
      const [dx, dy] = steps[event.key];
      if (!this.acts) {
        this.centre = [this.centre[0] + (0.1 * dx) / this.zoom, this.centre[1] + (0.1 * dy) / this.zoom];
        this.changed();
        return;
      }
      const fine = event.shiftKey;
      const size = [this.image.width, this.image.height];
      this.cursor ??= [...this.centre];
      this.cursor = this.cursor.map((v, i) => {
        const move = [dx, dy][i] * (fine ? 1 / size[i] : 0.02 / this.zoom);
        return Math.min(1, Math.max(0, v + move));
      });
      this.follow();
      this.dispatchEvent(new Event("cursor"));
    } else if (this.acts && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      if (!this.cursor) {
        this.cursor = [...this.centre];
        this.dispatchEvent(new Event("cursor"));
      } else if (this.tool !== "box") this.prompt(this.tool, this.cursor);
      else if (!this.corner) {
        this.corner = [...this.cursor];
        this.dispatchEvent(new Event("corner"));
      } else {
        const box = [...this.corner, ...this.cursor];
        this.corner = null;
        this.prompt("box", box);
      }
      this.draw();
    } else if (event.key === "Escape" && (this.corner || this.cursor)) {
      if (this.corner) this.corner = null;
      else this.cursor = null;
      this.draw();
    }
  }

  // Keep the cursor in sight where the image is larger than the canvas.
  follow() {
    const half = 0.45 / this.zoom;
    this.centre = this.centre.map((c, i) => Math.min(Math.max(c, this.cursor[i] - half), this.cursor[i] + half));
    this.changed();
  }
}
