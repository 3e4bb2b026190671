/* Charts over time, one canvas each, all on the same time axis. A chart paints only the steps that are new; everything is
 * painted again when size, colours or the run change. */
"use strict";

let GUTTER = 36; // CSS pixels left of the time axis, for labels

/* Make room for the longest of these labels, within reason. */
function makeRoom(names) {
  GUTTER = Math.max(36, Math.min(84, 14 + 7 * Math.max(...names.map((name) => name.length))));
  document.documentElement.style.setProperty("--gutter", `${GUTTER}px`);
}

/* Colours of the page's style, as canvases need them. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "soft", "line", "card", "spike", "band"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

class Chart {
  constructor(canvas, height) {
    this.canvas = canvas;
    this.height = height;
    this.painted = 0; // steps that are on the canvas
    this.stale = true; // everything must be painted again
    canvas.style.height = `${height}px`;
  }

  /* Paint what is missing of `run`. */
  paint(run, colours) {
    if (this.stale || run.t < this.painted) this.clear(run, colours);
    if (this.painted < run.t) this.columns(run, colours, this.painted, run.t);
    this.painted = run.t;
  }

  clear(run, colours) {
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.ctx = this.canvas.getContext("2d");
    this.ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.ctx.font = "11px system-ui, sans-serif";
    this.ctx.textBaseline = "middle";
    this.width = width - GUTTER;
    this.column = this.width / run.sequence.length;
    this.stale = false;
    this.painted = 0;
    this.background(run, colours);
  }

  x(t) {
    return GUTTER + t * this.column;
  }

  /* Which step is at `clientX`, or -1. */
  stepAt(clientX) {
    const t = Math.floor((clientX - this.canvas.getBoundingClientRect().left - GUTTER) / this.column);
    return t >= 0 ? t : -1;
  }

  label(text, y, colour, weight = "") {
    const { ctx } = this;
    ctx.font = `${weight} 11px system-ui, sans-serif`;
    ctx.fillStyle = colour;
    ctx.textAlign = "right";
    ctx.fillText(text, GUTTER - 7, y, GUTTER - 9);
  }

  rule(y, colour) {
    this.ctx.fillStyle = colour;
    this.ctx.fillRect(GUTTER, Math.round(y), this.width, 1);
  }
}

/* What arrives: one lane an input; events and pixels as bars from their ground, other signals as lines. */
class InputChart extends Chart {
  constructor(canvas, model) {
    const lanes = Math.min(model.inputs, 8);
    super(canvas, lanes === 1 ? 38 : 18 * lanes);
    this.lanes = lanes;
  }

  background(run, colours) {
    const { x, width } = run.sequence;
    this.low = new Float32Array(this.lanes).fill(Infinity);
    this.high = new Float32Array(this.lanes).fill(-Infinity);
    const values = new Set();
    for (let i = 0; i < x.length; i++) {
      const lane = i % width;
      if (lane >= this.lanes) continue;
      this.low[lane] = Math.min(this.low[lane], x[i]);
      this.high[lane] = Math.max(this.high[lane], x[i]);
      if (values.size < 4) values.add(x[i]);
    }
    this.bars = run.sequence.picture || values.size < 4;
    for (let lane = 0; lane < this.lanes; lane++) {
      this.rule(this.y(lane, this.ground(lane)), colours.line);
      if (this.lanes > 1) this.label(String(lane), this.y(lane, (this.low[lane] + this.high[lane]) / 2), colours.soft);
    }
  }

  ground(lane) {
    return Math.min(Math.max(0, this.low[lane]), this.high[lane]);
  }

  y(lane, value) {
    const height = this.height / this.lanes;
    const range = this.high[lane] - this.low[lane] || 1;
    return (lane + 1) * height - 2 - ((value - this.low[lane]) / range) * (height - 4);
  }

  columns(run, colours, from, to) {
    const { ctx } = this;
    const { x, width } = run.sequence;
    ctx.fillStyle = colours.ink;
    ctx.strokeStyle = colours.ink;
    ctx.lineWidth = 1.2;
    for (let lane = 0; lane < this.lanes; lane++) {
      if (this.bars) {
        const ground = this.y(lane, this.ground(lane));
        for (let t = from; t < to; t++) {
          const top = this.y(lane, x[t * width + lane]);
          const thick = Math.max(1, this.column * 0.75);
          if (top !== ground) ctx.fillRect(this.x(t), Math.min(top, ground), thick, Math.abs(ground - top));
        }
      } else {
        ctx.beginPath();
        for (let t = Math.max(0, from - 1); t < to; t++) ctx.lineTo(this.x(t + 0.5), this.y(lane, x[t * width + lane]));
        ctx.stroke();
      }
    }
  }
}

/* A mark for every spike of a layer: neurons upwards, time to the right. */
class Raster extends Chart {
  constructor(canvas, layer, model) {
    super(canvas, Math.max(48, Math.min(128, model.width * 4, 400 / model.layers)));
    this.layer = layer;
    this.neurons = model.width;
    this.row = this.height / this.neurons;
  }

  top(neuron) {
    return this.height - (neuron + 1) * this.row;
  }

  neuronAt(clientY) {
    const y = clientY - this.canvas.getBoundingClientRect().top;
    return Math.min(this.neurons - 1, Math.max(0, Math.floor((this.height - y) / this.row)));
  }

  background(run, colours) {
    this.rule(this.height - 1, colours.line);
    this.label("0", this.height - 6, colours.soft);
    this.label(String(this.neurons - 1), 7, colours.soft);
    const { layer, neuron } = run.watched;
    if (layer !== this.layer) return;
    this.ctx.fillStyle = colours.band;
    this.ctx.fillRect(GUTTER, this.top(neuron) - 1, this.width, this.row + 2);
    this.label("▸", Math.min(this.height - 6, Math.max(7, this.top(neuron) + this.row / 2)), colours.spike);
  }

  columns(run, colours, from, to) {
    const { ctx } = this;
    const thick = Math.max(1, Math.min(1.8, this.column * 0.6));
    // upright marks where there is room between them, else rows that stay apart
    const high = this.column > 3 ? Math.max(3.5, Math.min(6, this.row * 1.8)) : Math.max(1, this.row * 0.75);
    const spikes = run.spikes[this.layer];
    ctx.fillStyle = colours.spike;
    for (let t = from; t < to; t++) {
      const x = this.x(t) + (this.column - thick) / 2;
      for (let h = 0; h < this.neurons; h++) {
        if (spikes[t * this.neurons + h]) ctx.fillRect(x, this.top(h) + (this.row - high) / 2, thick, high);
      }
    }
  }
}

/* The watched neuron's potential before its reset, with the threshold; a dot where it fires. */
class PotentialChart extends Chart {
  constructor(canvas) {
    super(canvas, 88);
    this.fit(-0.5, 1.5);
  }

  fit(low, high) {
    this.low = low;
    this.high = high;
  }

  y(value) {
    return 5 + ((this.high - value) / (this.high - this.low)) * (this.height - 10);
  }

  paint(run, colours) {
    for (let t = this.stale ? 0 : this.painted; t < run.t; t++) {
      const value = run.potential(t);
      if (value < this.low || value > this.high) {
        this.fit(Math.min(this.low, value - 0.25), Math.max(this.high, value + 0.25));
        this.stale = true;
      }
    }
    super.paint(run, colours);
  }

  background(run, colours) {
    const { ctx } = this;
    this.rule(this.y(0), colours.line);
    if (this.y(0) - this.y(1) > 11) this.label("0", this.y(0), colours.soft);
    ctx.save();
    ctx.setLineDash([5, 4]);
    ctx.strokeStyle = colours.soft;
    ctx.beginPath();
    ctx.moveTo(GUTTER, this.y(1));
    ctx.lineTo(GUTTER + this.width, this.y(1));
    ctx.stroke();
    ctx.restore();
    this.label("1", this.y(1), colours.soft);
  }

  columns(run, colours, from, to) {
    const { ctx } = this;
    const { layer, neuron } = run.watched;
    ctx.strokeStyle = colours.ink;
    ctx.lineWidth = 1.3;
    ctx.lineJoin = "round";
    ctx.beginPath();
    for (let t = Math.max(0, from - 1); t < to; t++) {
      const value = run.potential(t);
      if (!Number.isNaN(value)) ctx.lineTo(this.x(t + 0.5), this.y(value));
    }
    ctx.stroke();
    ctx.fillStyle = colours.spike;
    const radius = Math.max(1.2, Math.min(3.2, this.column * 0.4));
    for (let t = Math.max(0, from - 1); t < to; t++) {
      if (!run.fired(layer, neuron, t)) continue;
      ctx.beginPath();
      ctx.arc(this.x(t + 0.5), this.y(run.potential(t)), radius, 0, 2 * Math.PI);
      ctx.fill();
    }
  }
}

/* The probability of every class at every step; where the true class is known it is marked. */
class ClassChart extends Chart {
  constructor(canvas, names) {
    super(canvas, Math.max(3, Math.min(15, 120 / names.length)) * names.length);
    this.names = names;
    this.row = this.height / names.length;
  }

  background(run, colours) {
    const { label } = run.sequence;
    this.names.forEach((name, c) => {
      this.rule((c + 1) * this.row - 1, colours.line);
      if (this.row < 9 && c !== label) return;
      const true_ = c === label;
      this.label(true_ ? `▸ ${name}` : name, (c + 0.5) * this.row, true_ ? colours.ink : colours.soft, true_ ? "bold" : "");
    });
  }

  columns(run, colours, from, to) {
    const { ctx } = this;
    const classes = this.names.length;
    const { labels } = run.sequence;
    ctx.fillStyle = colours.spike;
    for (let t = from; t < to; t++) {
      const left = this.x(t);
      for (let c = 0; c < classes; c++) {
        const p = run.probabilities[t * classes + c];
        if (p < 0.02) continue;
        ctx.globalAlpha = p;
        ctx.fillRect(left, c * this.row, this.column + 0.3, this.row - 1);
      }
    }
    ctx.globalAlpha = 1;
    if (!labels) return;
    ctx.fillStyle = colours.ink;
    for (let t = from; t < to; t++) {
      if (labels[t] >= 0) ctx.fillRect(this.x(t), (labels[t] + 0.5) * this.row - 1.5, this.column + 0.3, 2);
    }
  }
}
