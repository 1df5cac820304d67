// Draws labels into a picture: by brush and eraser, or by box and points, out of which
// the server makes a mask.

import { ask } from "./api.js";

const KEPT = 10; // steps that can be undone
const GROWING = ["box", "object", "background"]; // they make one mask together
const find = (id) => document.getElementById(id);

function within([x, y], [left, top, right, bottom]) {
  return left <= x && x < right && top <= y && y < bottom;
}

export class Editor {
  // colors: label -> [r, g, b]. changed: called after every change. said: shows a text.
  constructor({ colors, changed, said }) {
    Object.assign(this, { colors, changed, said, picture: null, label: 1, cross: [0, 0] });
    this.stage = find("stage");
    const steps = {
      pointerdown: (event) => this.#down(event), pointermove: (event) => this.#move(event),
      pointerup: () => this.#up(), pointercancel: () => this.#up(),
    };
    for (const [kind, step] of Object.entries(steps)) {
      this.stage.addEventListener(kind, (event) => {
        if (event.isPrimary) step(event); // a second finger does not draw
      });
    }
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.stage.addEventListener("blur", () => this.#marks(false));
    find("editor").addEventListener("keydown", (event) => this.#shortcut(event));
    find("undo").addEventListener("click", () => this.undo());
    find("clear").addEventListener("click", () => {
      this.#forget();
      this.#keep();
      this.picture.labels.fill(0);
      this.#all();
    });
    for (const tool of document.getElementsByName("tool")) {
      tool.addEventListener("change", () => {
        if (!GROWING.includes(this.tool)) this.#forget();
      });
    }
  }

  get tool() {
    return document.querySelector("[name=tool]:checked").value;
  }

  // Radius of the brush, in pixels of the picture.
  get radius() {
    return (find("size").value / 400) * Math.max(this.picture.width, this.picture.height);
  }

  open(picture) {
    this.picture = picture;
    this.steps = [];
    this.cross = [picture.width >> 1, picture.height >> 1];
    for (const id of ["picture", "drawn"]) {
      Object.assign(find(id), { width: picture.width, height: picture.height });
    }
    find("picture").getContext("2d").drawImage(picture.bitmap, 0, 0);
    const ratio = picture.width / picture.height;
    Object.assign(this.stage.style, { aspectRatio: `${ratio}`, maxWidth: `${70 * ratio}vh` });
    find("editor").hidden = false;
    this.#forget();
    this.draw();
  }

  draw() {
    if (this.picture) this.picture.drawLabels(find("drawn"), this.colors);
  }

  choose(label) {
    this.label = label;
    this.#forget();
  }

  undo() {
    // Marks that have made no mask are the last step.
    const step = this.#marked && !this.before ? null : this.steps.pop();
    this.#forget();
    if (!step) return;
    this.picture.labels.set(step);
    this.#all();
  }

  get #marked() {
    return this.box || this.corner || this.points.length > 0;
  }

  #keep() {
    this.steps.push(this.picture.labels.slice());
    if (this.steps.length > KEPT) this.steps.shift();
  }

  // Ends a box with its points: the next ones are of another object.
  #forget() {
    this.#abort();
    Object.assign(this, { box: null, corner: null, points: [], before: null, last: null });
    if (this.picture) this.#marks(document.activeElement === this.stage);
  }

  #abort() {
    if (!this.asking) return;
    this.asking.abort();
    this.asking = null;
    this.said("");
  }

  #all() {
    this.draw();
    this.changed(this.picture);
  }

  #place(event) {
    const area = find("picture").getBoundingClientRect();
    const { width, height } = this.picture;
    const x = Math.floor(((event.clientX - area.left) / area.width) * width);
    const y = Math.floor(((event.clientY - area.top) / area.height) * height);
    return [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
  }

  #down(event) {
    if (event.button) return;
    event.preventDefault();
    this.stage.focus();
    this.stage.setPointerCapture(event.pointerId);
    this.#begin(this.#place(event));
    this.held = true;
  }

  #move(event) {
    if (!this.picture) return;
    this.cross = this.#place(event);
    if (this.held && this.last) this.#stroke(this.cross);
    else this.#marks(false);
  }

  #up() {
    if (!this.held) return;
    this.held = false;
    if (this.corner) this.#close(this.cross);
    if (this.last) this.#end();
  }

  #begin(place) {
    this.cross = place;
    if (this.tool === "brush" || this.tool === "eraser") {
      this.#keep();
      this.last = place;
      this.#stroke(place);
    } else if (this.tool === "box") {
      this.#forget();
      this.corner = place;
    } else if (this.box && !within(place, this.box) && this.tool === "background") {
      this.said("all outside of the box is background already");
    } else {
      if (this.box && !within(place, this.box)) this.#forget(); // another object
      this.points.push([...place, this.tool === "object"]);
      this.#grow();
    }
  }

  #end() {
    this.last = null;
    this.changed(this.picture);
  }

  // A round brush from the last place to this one.
  #stroke([x1, y1]) {
    const { width, height, labels } = this.picture;
    const [x0, y0] = this.last;
    const r = this.radius;
    const label = this.tool === "eraser" ? 0 : this.label;
    const length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - r));
    const right = Math.min(width, Math.ceil(Math.max(x0, x1) + r) + 1);
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - r));
    const bottom = Math.min(height, Math.ceil(Math.max(y0, y1) + r) + 1);
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const along = length2 ? ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2 : 0;
        const share = Math.min(1, Math.max(0, along));
        const gap2 = (x0 + share * (x1 - x0) - x) ** 2 + (y0 + share * (y1 - y0) - y) ** 2;
        if (gap2 <= r * r) labels[y * width + x] = label;
      }
    }
    this.picture.drawLabels(find("drawn"), this.colors, [left, top, right, bottom]);
    this.last = [x1, y1];
    this.#marks(false);
  }

  #close([x, y]) {
    const [x0, y0] = this.corner;
    this.corner = null;
    this.box = [Math.min(x0, x), Math.min(y0, y), Math.max(x0, x) + 1, Math.max(y0, y) + 1];
    this.#grow();
  }

  // Asks for the mask of the box and the points, and draws it with the chosen label.
  async #grow() {
    const picture = this.picture;
    this.#marks(document.activeElement === this.stage);
    if (!this.box && !this.points.some(([, , inside]) => inside)) return;
    this.#abort();
    const asking = (this.asking = new AbortController());
    const fields = [["image", picture.file, picture.name]];
    if (this.box) fields.push(["box", this.box.join()]);
    for (const [x, y, inside] of this.points) fields.push(["points", `${x},${y},${inside ? "+" : "-"}`]);
    this.said("Looking for the object ...");
    try {
      const answer = await ask("api/mask", fields, { signal: asking.signal });
      const mask = await createImageBitmap(await answer.blob());
      if (asking.signal.aborted) return;
      const canvas = new OffscreenCanvas(picture.width, picture.height);
      canvas.getContext("2d").drawImage(mask, 0, 0);
      const pixels = canvas.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
      if (this.before) picture.labels.set(this.before); // more points, another mask
      else {
        this.#keep();
        this.before = this.steps.at(-1);
      }
      for (let k = 0; k < picture.labels.length; k++) {
        if (pixels[4 * k] || pixels[4 * k + 1] || pixels[4 * k + 2]) picture.labels[k] = this.label;
      }
      this.asking = null;
      this.said("");
      this.#all();
    } catch (fault) {
      if (asking.signal.aborted) return;
      this.asking = null;
      this.said(fault.message, true);
    }
  }

  // The box, the points and, for the keyboard, a cross with the brush.
  #marks(cross) {
    const canvas = find("marks");
    const context = canvas.getContext("2d");
    // As fine as the screen, in coordinates of the picture.
    canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
    canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
    const scale = canvas.width / this.picture.width;
    const line = (1.5 * devicePixelRatio) / scale;
    context.scale(scale, scale);
    const stroke = (draw) => {
      for (const [color, width] of [["#000", 2.5 * line], ["#fff", line]]) {
        Object.assign(context, { strokeStyle: color, lineWidth: width });
        context.beginPath();
        draw();
        context.stroke();
      }
    };
    const [x, y] = this.cross;
    const box = this.corner ? [...this.corner, x, y] : this.box;
    if (box) stroke(() => context.rect(box[0], box[1], box[2] - box[0], box[3] - box[1]));
    for (const [px, py, inside] of this.points) {
      stroke(() => {
        context.moveTo(px - 4 * line, py);
        context.lineTo(px + 4 * line, py);
        if (inside) context.moveTo(px, py - 4 * line);
        if (inside) context.lineTo(px, py + 4 * line);
      });
    }
    if (cross) {
      stroke(() => {
        context.moveTo(x - 6 * line, y);
        context.lineTo(x + 6 * line, y);
        context.moveTo(x, y - 6 * line);
        context.lineTo(x, y + 6 * line);
      });
    }
    if (this.tool === "brush" || this.tool === "eraser") {
      stroke(() => context.arc(x, y, this.radius, 0, 2 * Math.PI));
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = this.picture;
    const step = Math.max(1, Math.round(Math.max(width, height) / (event.shiftKey ? 20 : 100)));
    const moves = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
    };
    if (moves[event.key]) {
      const [x, y] = moves[event.key];
      this.cross = [
        Math.min(Math.max(this.cross[0] + x, 0), width - 1),
        Math.min(Math.max(this.cross[1] + y, 0), height - 1),
      ];
      this.#marks(true);
    } else if (event.key === " " || event.key === "Enter") {
      if (this.corner) this.#close(this.cross);
      else {
        this.#begin(this.cross);
        if (this.last) this.#end();
      }
      this.#marks(true);
    } else {
      return;
    }
    event.preventDefault();
  }

  // Keys that work on the tools and labels too, but not where names are written.
  #shortcut(event) {
    if (event.target.type === "text") return;
    const key = event.key.toLowerCase(); // Caps Lock may be on
    const tools = { b: "brush", e: "eraser", x: "box", p: "object", n: "background" };
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" || event.shiftKey) return;
      this.undo();
    } else if (event.altKey) {
      return;
    } else if (tools[key]) {
      document.querySelector(`[name=tool][value=${tools[key]}]`).click();
    } else if (key === "[" || key === "]") {
      find("size").value = Number(find("size").value) + (key === "[" ? -2 : 2);
    } else if (key === "z") {
      this.undo();
    } else if (/^[1-9]$/.test(key)) {
      document.querySelector(`[name=label][value="${key}"]`)?.click();
    } else {
      return;
    }
    event.preventDefault();
    this.#marks(document.activeElement === this.stage);
  }
}
