// A canvas that shows one slice of a volume after another, with the masks of an episode on it.

import { Slices } from "./volume_slices.js";

export class VolumePane {
  constructor(viewer) {
    this.viewer = viewer;
    this.slices = new Slices();
    this.id = null;
    this.turn = 0; // of showing: a slice that comes late is not shown
  }

  // id: of a game, of a policy's episode or of a recording; pixel: width and height of one;
  // images: Slices that has the images already
  open(id, pixel, images = null) {
    this.turn++;
    this.id = id;
    this.slices.open(id, images);
    this.viewer.blank();
    this.viewer.reset();
    this.viewer.pixel = pixel;
  }

  close() {
    this.turn++;
    this.id = null;
    this.viewer.blank();
  }

  // Show a slice; false if another one was asked for meanwhile. here: what there is on it, if anything;
  // truth: a promise of a Mask, or nothing
  async show(index, here, truth = null) {
    const turn = ++this.turn;
    const [image, mask, outline] = await Promise.all([
      this.slices.image(index),
      this.slices.mask(index, here?.mask),
      truth,
    ]);
    if (turn !== this.turn) return false;
    this.viewer.setSlice(image, { mask, truth: outline, box: here?.box ?? null, points: here?.points ?? [] });
    return true;
  }
}
