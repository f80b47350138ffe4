// Where a player shows the steps of an episode: on an image, or slice by slice on a volume.

import { COLOURS, Mask } from "./pixels.js";

export class ImageScreen {
  constructor(viewer) {
    this.viewer = viewer;
  }

  // Beside somebody's game: the same image, shown alike.
  beside(mine) {
    this.viewer.image = mine.image;
    this.viewer.truth = mine.truth;
  }

  close() {
    this.viewer.blank();
  }

  // What takes time before a step can be shown.
  read(step) {
    return Mask.read(step.mask, COLOURS.mask);
  }

  show(step, mask) {
    this.viewer.setState(step ? { mask, box: step.box, points: step.points } : {});
  }
}

export class VolumeScreen {
  // pane: a VolumePane; onStep(index): the step that is shown acted on this slice, or null at the start
  constructor(pane, onStep) {
    this.pane = pane;
    this.viewer = pane.viewer;
    this.onStep = onStep;
    this.step = null;
    this.index = 0;
    this.truth = null; // slice -> promise of its truth, once it may be shown
  }

  // Beside somebody's game: the same images, the masks of the other one.
  beside(mine, id, images) {
    this.pane.open(id, mine.pixel, images);
    this.step = null;
  }

  close() {
    this.step = null;
    this.pane.close();
  }

  read() {
    return null; // masks come when they are looked at
  }

  show(step) {
    this.step = step ?? null;
    this.look(this.index);
    if (step && step.slice !== null && step.valid) this.onStep(step.slice);
  }

  // Show a slice after the step that is shown.
  look(index) {
    this.index = index;
    if (this.pane.id === null) return null;
    return this.pane.show(index, this.step?.slices[index], this.truth?.(index)).catch(() => false);
  }
}
