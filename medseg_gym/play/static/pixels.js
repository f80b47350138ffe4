// Images as pixels: decoding, window and level, masks and their outlines.

export const COLOURS = {
  mask: [40, 220, 90],
  truth: [255, 196, 0],
  box: "#50aaff",
  positive: "#14c83c",
  negative: "#eb3232",
};

export async function bitmapOf(blob) {
  // "none": an embedded profile must not change what the segmenter saw.
  return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

export function blobOf(base64, kind = "image/png") {
  return new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: kind });
}

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// An image that can be shown through a window of intensities.
export class Windowed {
  constructor(bitmap) {
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.canvas = canvasOf(this.width, this.height);
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    this.original = context.getImageData(0, 0, this.width, this.height);
    const data = this.original.data;
    this.grey = true;
    for (let i = 0; i < data.length && this.grey; i += 4)
      this.grey = data[i] === data[i + 1] && data[i] === data[i + 2];
  }

  show(window, level) {
    const low = level - window / 2;
    const table = Uint8ClampedArray.from({ length: 256 }, (_, v) => ((v - low) / window) * 255);
    const shown = new ImageData(this.width, this.height);
    const [from, to] = [this.original.data, shown.data];
    for (let i = 0; i < from.length; i += 4) {
      to[i] = table[from[i]];
      to[i + 1] = table[from[i + 1]];
      to[i + 2] = table[from[i + 2]];
      to[i + 3] = 255;
    }
    this.canvas.getContext("2d").putImageData(shown, 0, 0);
  }
}

// A mask as two images: its area in one colour, and the outline.
export class Mask {
  constructor(bitmap, colour) {
    const [width, height] = [bitmap.width, bitmap.height];
    const source = canvasOf(width, height);
    const context = source.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const inside = context.getImageData(0, 0, width, height).data;
    const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[4 * (y * width + x)] > 127;
    this.area = canvasOf(width, height);
    const area = new ImageData(width, height);
    this.edges = new Path2D(); // pixel borders, in image pixels: crisp at every zoom
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        if (!at(x, y)) continue;
        area.data.set([...colour, 255], 4 * (y * width + x));
        for (const [dx, dy, x1, y1, x2, y2] of [
          [-1, 0, x, y, x, y + 1],
          [1, 0, x + 1, y, x + 1, y + 1],
          [0, -1, x, y, x + 1, y],
          [0, 1, x, y + 1, x + 1, y + 1],
        ])
          if (!at(x + dx, y + dy)) {
            this.edges.moveTo(x1, y1);
            this.edges.lineTo(x2, y2);
          }
      }
    this.area.getContext("2d").putImageData(area, 0, 0);
    this.colour = `rgb(${colour.join(" ")})`;
  }

  static async read(base64, colour) {
    return base64 ? new Mask(await bitmapOf(blobOf(base64)), colour) : null;
  }
}
