/* The pad: a picture of the network's input on which one can write, with mouse, finger, pen or keyboard.
 *
 * A drawing is kept as strokes and brought to the size and place that writing has in the data set, so that it does not
 * matter how large or where one writes; then it is painted at many times the resolution and averaged to pixels.
 */
"use strict";

const FINE = 16; // points a pixel, along each side, at which strokes are painted

class Pad {
  /* picture: rows, columns, order, paper, ink, box, pen. `changed(settled)` is called when the drawing has changed. */
  constructor(canvas, picture, changed) {
    this.canvas = canvas;
    this.picture = picture;
    this.changed = changed;
    this.grey = new Float32Array(picture.rows * picture.columns); // what is shown, 0 .. 1, row by row
    this.strokes = [];
    this.stroke = null; // the one being drawn
    this.cell = null; // the keyboard's pixel
    this.fit = picture.box !== null;
    this.listeners = new AbortController();
    this.listen();
  }

  listen() {
    const { canvas } = this;
    const { signal } = this.listeners;
    canvas.addEventListener("pointerdown", (event) => this.down(event), { signal });
    canvas.addEventListener("pointermove", (event) => this.move(event), { signal });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.up(), { signal });
    canvas.addEventListener("keydown", (event) => this.key(event), { signal });
    canvas.addEventListener("blur", () => this.moveTo(null), { signal });
  }

  remove() {
    this.listeners.abort();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.moveTo(null);
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {
      // a pointer made by a script cannot be captured; drawing works without
    }
    this.stroke = [this.point(event)];
    this.strokes.push(this.stroke);
    this.rasterise(false);
    this.changed(false);
  }

  move(event) {
    if (!this.stroke) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of events.length ? events : [event]) this.stroke.push(this.point(each));
    this.rasterise(false);
    this.changed(false);
  }

  up() {
    if (!this.stroke) return;
    this.stroke = null;
    this.rasterise(this.fit);
    this.changed(true);
  }

  /* Arrow keys move a pixel cursor, the space bar inks or clears its pixel. */
  key(event) {
    const { rows, columns } = this.picture;
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in steps) {
      const [down, right] = steps[event.key];
      const [row, column] = this.cell || [Math.floor(rows / 2) - down, Math.floor(columns / 2) - right];
      this.moveTo([(row + down + rows) % rows, (column + right + columns) % columns]);
    } else if (event.key === " " && this.cell) {
      const at = this.cell[0] * columns + this.cell[1];
      this.grey[at] = this.grey[at] > 0.5 ? 0 : 1;
      this.changed(true);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  moveTo(cell) {
    if (!cell && !this.cell) return;
    this.cell = cell;
    this.changed(null);
  }

  clear() {
    this.strokes = [];
    this.stroke = null;
    this.grey.fill(0);
  }

  /* Of what was drawn keep only the stroke that has just begun: it is no addition to a sample. */
  startOver() {
    this.strokes = this.stroke ? [this.stroke] : [];
    this.rasterise(false);
  }

  /* Show the inputs of a sample. */
  show(x) {
    const { order, paper, ink } = this.picture;
    this.strokes = [];
    for (let t = 0; t < x.length; t++) this.grey[order ? order[t] : t] = (x[t] - paper) / (ink - paper);
  }

  /* The inputs, in the order in which they arrive. */
  inputs() {
    const { order, paper, ink } = this.picture;
    return Float32Array.from(this.grey, (_, t) => paper + (ink - paper) * this.grey[order ? order[t] : t]);
  }

  /* Strokes -> pixels; `fit` brings them to the data set's box. */
  rasterise(fit) {
    const { rows, columns } = this.picture;
    const canvas = document.createElement("canvas");
    canvas.width = columns * FINE;
    canvas.height = rows * FINE;
    const ctx = canvas.getContext("2d", { willReadFrequently: true });
    const pen = this.picture.pen || 0.09;
    const [scale, left, top] = fit ? this.place(pen) : [1, 0, 0];
    ctx.lineWidth = pen * canvas.height;
    ctx.lineCap = ctx.lineJoin = "round";
    for (const stroke of this.strokes) {
      ctx.beginPath();
      for (const [x, y] of stroke) ctx.lineTo((x * scale + left) * canvas.width, (y * scale + top) * canvas.height);
      if (stroke.length === 1) ctx.lineTo((stroke[0][0] * scale + left) * canvas.width + 0.1, (stroke[0][1] * scale + top) * canvas.height);
      ctx.stroke();
    }
    const { data } = ctx.getImageData(0, 0, canvas.width, canvas.height);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        let ink = 0;
        for (let j = row * FINE; j < (row + 1) * FINE; j++) {
          for (let i = column * FINE; i < (column + 1) * FINE; i++) ink += data[4 * (j * canvas.width + i) + 3];
        }
        this.grey[row * columns + column] = ink / (255 * FINE * FINE);
      }
    }
  }

  /* [scale, left, top] that bring the strokes to the box of the data set: its height, its centre, nothing cut off. */
  place(pen) {
    const points = this.strokes.flat();
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const [boxTop, boxLeft, boxBottom, boxRight] = this.picture.box;
    const room = Math.max(0.1, boxBottom - boxTop - pen); // for the middle of the pen
    const scale = Math.min(room / Math.max(bottom - top, 0.05), Math.max(0.1, 1 - pen) / Math.max(right - left, 0.05));
    const centre = [(boxLeft + boxRight) / 2, (boxTop + boxBottom) / 2];
    return [scale, centre[0] - (scale * (left + right)) / 2, centre[1] - (scale * (top + bottom)) / 2];
  }

  /* Paint the pixels: those of the first `arrived` steps full, the others pale; the latest framed. */
  paint(colours, arrived) {
    const { canvas } = this;
    const { rows, columns, order } = this.picture;
    const ratio = window.devicePixelRatio || 1;
    const size = Math.round(canvas.clientWidth * ratio);
    if (!size) return;
    canvas.width = size;
    canvas.height = Math.round((size * rows) / columns);
    const ctx = canvas.getContext("2d");
    const side = size / columns;
    const edge = (k) => Math.round(k * side);
    for (let t = 0; t < rows * columns; t++) {
      const at = order ? order[t] : t;
      const [row, column] = [Math.floor(at / columns), at % columns];
      const value = Math.min(1, Math.max(0, this.grey[at]));
      const inked = t < arrived || this.stroke ? value : value * 0.22;
      const place = [edge(column), edge(row), edge(column + 1) - edge(column), edge(row + 1) - edge(row)];
      if (inked > 0.004) {
        ctx.globalAlpha = inked;
        ctx.fillStyle = colours.ink;
        ctx.fillRect(...place);
      }
    }
    ctx.globalAlpha = 1;
    if (side > 12) this.grid(ctx, colours, size, edge);
    const frame = (at, colour) => {
      ctx.strokeStyle = colour;
      ctx.lineWidth = Math.max(2, 2 * ratio);
      ctx.strokeRect(edge(at % columns), edge(Math.floor(at / columns)), Math.ceil(side), Math.ceil(side));
    };
    if (arrived > 0 && arrived < rows * columns) frame(order ? order[arrived - 1] : arrived - 1, colours.spike);
    if (this.cell) frame(this.cell[0] * columns + this.cell[1], colours.ink);
    if (this.stroke) this.ghost(ctx, colours);
  }

  grid(ctx, colours, size, edge) {
    ctx.fillStyle = colours.line;
    for (let k = 1; k < this.picture.columns; k++) ctx.fillRect(edge(k), 0, 1, ctx.canvas.height);
    for (let k = 1; k < this.picture.rows; k++) ctx.fillRect(0, edge(k), size, 1);
  }

  /* The strokes as they are drawn. */
  ghost(ctx, colours) {
    ctx.strokeStyle = colours.spike;
    ctx.lineWidth = ctx.canvas.width / 100;
    ctx.lineCap = ctx.lineJoin = "round";
    for (const stroke of this.strokes) {
      ctx.beginPath();
      for (const [x, y] of stroke) ctx.lineTo(x * ctx.canvas.width, y * ctx.canvas.height);
      ctx.stroke();
    }
  }
}
