// Slices of a volume: images and masks as they come from the service, kept while there is room.

import { fetchImage } from "./api.js";
import { COLOURS, Mask, bitmapOf } from "./pixels.js";

const KEPT = 300; // images and masks, compressed
const AHEAD = 3; // slices to either side that are fetched before they are shown

export class Slices {
  constructor() {
    this.open(null);
  }

  // id: whose masks; images: Slices that has the images already, if any
  open(id, images = null) {
    this.id = id;
    this.images = images;
    this.kept = new Map(); // path -> promise of a blob; the newest last
  }

  blob(path) {
    let promise = this.kept.get(path);
    this.kept.delete(path);
    promise ??= fetchImage(`volumes/${this.id}/${path}`);
    this.kept.set(path, promise);
    promise.catch(() => this.kept.delete(path)); // asked for again the next time
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return promise;
  }

  async image(index) {
    return this.images?.image(index) ?? bitmapOf(await this.blob(`slices/${index}`));
  }

  // number: names the mask; another mask has another number.
  async mask(index, number) {
    if (!number) return null;
    return new Mask(await bitmapOf(await this.blob(`masks/${index}?mask=${number}`)), COLOURS.mask);
  }

  keep(index, number, blob) {
    this.kept.set(`masks/${index}?mask=${number}`, Promise.resolve(blob));
  }

  async truth(index) {
    return new Mask(await bitmapOf(await this.blob(`truth/${index}`)), COLOURS.truth);
  }

  // Fetch what is likely to be shown next; failures show when it is.
  fetchAhead(index, depth, slices) {
    for (let away = 1; away <= AHEAD; away++)
      for (const near of [index + away, index - away]) {
        if (near < 0 || near >= depth) continue;
        if (!this.images) this.blob(`slices/${near}`).catch(() => {});
        const number = slices[near]?.mask;
        if (number) this.blob(`masks/${near}?mask=${number}`).catch(() => {});
      }
  }
}
