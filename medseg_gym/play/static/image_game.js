// A game on an image: every answer brings the mask.

import { fetchImage } from "./api.js";
import { Game } from "./game.js";
import { COLOURS, Mask, bitmapOf } from "./pixels.js";

export class ImageGame extends Game {
  constructor(viewer, verdict) {
    super("medseg.game", verdict);
    this.viewer = viewer;
  }

  async prepare(state) {
    return bitmapOf(await fetchImage(`games/${state.game}/image`));
  }

  opened(bitmap) {
    this.viewer.truth = null;
    this.viewer.setState({});
    this.viewer.setImage(bitmap);
  }

  async show(state) {
    const mask = await Mask.read(state.state.mask, COLOURS.mask);
    if (state.truth) this.viewer.truth = await Mask.read(state.truth, COLOURS.truth);
    this.viewer.setState({ mask, box: state.state.box, points: state.state.points });
  }
}
