// A viewer of slices: the wheel and the arrow keys scroll, Ctrl and the wheel zoom.

import { Windowed } from "./pixels.js";
import { Viewer } from "./viewer.js";

const NOTCH = 60; // how far a wheel turns for one slice
const SCROLL = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 5, PageUp: -5, Home: -Infinity, End: Infinity };

export class SliceViewer extends Viewer {
  constructor(canvas, acts) {
    super(canvas, { acts });
    this.turned = 0;
  }

  // Another slice of the same volume: zoom, window and level stay.
  setSlice(bitmap, state) {
    this.image = new Windowed(bitmap);
    if (this.image.grey && (this.window !== 255 || this.level !== 127.5)) this.image.show(this.window, this.level);
    this.setState(state);
  }

  setState(state) {
    this.truth = state.truth ?? null;
    super.setState(state);
  }

  scroll(by) {
    this.corner = null;
    this.dispatchEvent(new CustomEvent("scroll", { detail: by }));
  }

  wheel(event, at) {
    event.preventDefault();
    if (event.ctrlKey) {
      this.zoomBy(Math.exp(-event.deltaY / 400), at);
      return;
    }
    this.turned += event.deltaMode ? Math.sign(event.deltaY) * NOTCH : event.deltaY;
    const notches = Math.trunc(this.turned / NOTCH);
    this.turned -= notches * NOTCH;
    // One turn of a common wheel (100 or 120) is one slice; a touchpad's many small ones add up.
    if (notches) this.scroll(Math.sign(notches) * Math.max(1, Math.floor(Math.abs(notches) / 2)));
  }

  // Arrow keys scroll until Enter has brought the cursor; Esc takes it away again.
  key(event) {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const pages = event.key.startsWith("Page") || event.key === "Home" || event.key === "End";
    if (this.image && plain && event.key in SCROLL && (pages || !this.cursor)) {
      event.preventDefault();
      this.scroll(SCROLL[event.key]);
      return;
    }
    super.key(event);
  }
}
