// An image with its labels, and how both are drawn.

export class Picture {
  constructor(file, bitmap) {
    this.file = file;
    this.name = file.name;
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.labels = new Uint8Array(this.width * this.height);
    this.annotations = null; // the server's, as long as nobody corrects them
    this.done = false;
    this.fault = "";
  }

  static async read(file) {
    try {
      return new Picture(file, await createImageBitmap(file));
    } catch {
      throw new Error(
        `${file.name} is no picture that this browser can show: JPEG or PNG is`,
      );
    }
  }

  get empty() {
    return !this.labels.some((label) => label);
  }

  // Draws the colours of labels in a rectangle; nothing where there is no label.
  drawLabels(canvas, colors, [left, top, right, bottom] = [0, 0, this.width, this.height]) {
    if (right <= left || bottom <= top) return;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(right - left, bottom - top);
    const values = new Uint32Array(pixels.data.buffer);
    const table = Uint32Array.from({ length: 256 }, (_, label) => {
      const [r, g, b] = colors(label);
      return label && (255 << 24 | b << 16 | g << 8 | r);
    });
    let k = 0;
    for (let y = top; y < bottom; y++) {
      const row = y * this.width;
      for (let x = left; x < right; x++) values[k++] = table[this.labels[row + x]];
    }
    context.putImageData(pixels, left, top);
  }

  // A small picture with its labels over it.
  thumbnail(canvas, colors) {
    const whole = new OffscreenCanvas(this.width, this.height);
    this.drawLabels(whole, colors);
    const scale = Math.min(1, 320 / Math.max(this.width, this.height));
    canvas.width = Math.max(1, Math.round(scale * this.width));
    canvas.height = Math.max(1, Math.round(scale * this.height));
    const context = canvas.getContext("2d");
    context.drawImage(this.bitmap, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 0.6;
    context.drawImage(whole, 0, 0, canvas.width, canvas.height);
  }
}
