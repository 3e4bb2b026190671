/* A run: one sequence going through the engine, and everything that is worth drawing of it. No browser needed. */
"use strict";

/* Potentials of all neurons are kept up to this many numbers; of longer runs, those of the watched neuron alone. */
const MOST_POTENTIALS = 1 << 23;

class Run {
  constructor(engine) {
    this.engine = engine;
    this.watched = { layer: 0, neuron: 0 };
    this.whole = true; // whether potentials of all neurons are kept
  }

  /* Begin with `sequence`: {length, at(t) -> input of step t, label, labels}. */
  start(sequence) {
    const { layers, width, classes } = this.engine.model;
    const L = sequence.length;
    this.engine.reset();
    this.sequence = sequence;
    this.t = 0;
    this.spikes = Array.from({ length: layers }, () => new Uint8Array(L * width));
    this.totals = new Float64Array(layers); // spikes so far
    this.whole = layers * width * L <= MOST_POTENTIALS;
    this.before = new Float32Array(this.whole ? layers * width * L : L).fill(NaN);
    this.probabilities = new Float32Array(L * classes);
    this.answers = new Int16Array(L);
  }

  get done() {
    return this.t >= this.sequence.length;
  }

  step() {
    this.record(this.engine.step(this.sequence.at(this.t)));
    this.t += 1;
  }

  record(logits) {
    const { engine, t } = this;
    const { layers, width, classes } = engine.model;
    for (let i = 0; i < layers; i++) {
      const row = this.spikes[i];
      for (let k = 0; k < engine.counts[i]; k++) row[t * width + engine.fired[i][k]] = 1;
      this.totals[i] += engine.counts[i];
    }
    if (this.whole) this.before.set(engine.before, t * layers * width);
    else this.before[t] = engine.before[this.watched.layer * width + this.watched.neuron];
    this.answers[t] = softmax(logits, this.probabilities.subarray(t * classes, (t + 1) * classes));
  }

  /* Watch one neuron's potential; in a run too long to keep all of them, from now on. */
  watch(layer, neuron) {
    if (!this.whole && (layer !== this.watched.layer || neuron !== this.watched.neuron)) this.before.fill(NaN);
    this.watched = { layer, neuron };
  }

  /* Potential u' of the watched neuron at step t, before its reset. */
  potential(t) {
    const { layers, width } = this.engine.model;
    const { layer, neuron } = this.watched;
    return this.before[this.whole ? (t * layers + layer) * width + neuron : t];
  }

  fired(layer, neuron, t) {
    return this.spikes[layer][t * this.engine.model.width + neuron] === 1;
  }

  /* Operations so far: {spikes, rate, mix, mixDense, all, allDense}. */
  counters() {
    const { layers, width } = this.engine.model;
    const { rest, column, dense } = this.engine.operations;
    const spikes = this.totals.reduce((sum, n) => sum + n, 0);
    return {
      spikes,
      rate: this.t ? spikes / (this.t * layers * width) : 0,
      mix: spikes * column,
      mixDense: this.t * layers * column * width,
      all: this.t * rest + spikes * column,
      allDense: this.t * dense,
    };
  }
}

/* The samples of a page: {count, get(i) -> sequence with label(s)}, from the plain data. */
class Samples {
  constructor(entry) {
    const { samples, model } = entry;
    this.entry = entry;
    this.count = samples.count;
    this.ends = samples.ends;
    this.width = model.encoder === "embedding" ? 1 : model.inputs;
    const Values = model.encoder === "embedding" ? Int32Array : Float32Array;
    if (samples.palette === null) {
      this.x = unpack(samples.x, Values);
    } else {
      const palette = unpack(samples.palette, Values);
      this.x = Values.from(unpack(samples.x, Uint8Array), (index) => palette[index]);
    }
    this.y = unpack(samples.y, Int16Array);
    this.logits = unpack(samples.logits);
    this.perStep = model.decoder === "per_step";
  }

  get(i) {
    const start = i ? this.ends[i - 1] : 0;
    const x = this.x.subarray(start * this.width, this.ends[i] * this.width);
    const y = this.perStep ? this.y.subarray(start, this.ends[i]) : null;
    return sequence(this.entry.model, x, { index: i, label: this.perStep ? null : this.y[i], labels: y });
  }

  /* Python's logits for sample i: [[step, logits], ...]. */
  reference(i) {
    const { at } = this.entry.samples;
    const C = this.entry.model.classes;
    const start = at.slice(0, i).reduce((sum, steps) => sum + steps.length, 0);
    return at[i].map((step, k) => [step, this.logits.subarray((start + k) * C, (start + k + 1) * C)]);
  }

  /* What Python answers for sample i at the end. */
  read(i) {
    return softmax(this.reference(i).at(-1)[1], new Float32Array(this.entry.model.classes));
  }
}

/* A sequence from flat inputs; a token sequence hands on ids, any other one a view of its inputs. */
function sequence(model, x, about) {
  const ids = model.encoder === "embedding";
  const width = ids ? 1 : model.inputs;
  const at = ids ? (t) => x[t] : (t) => x.subarray(t * width, (t + 1) * width);
  return { length: x.length / width, x, width, at, index: null, label: null, labels: null, ...about };
}

/* Run every sample and compare with Python's logits: {worst, same, compared, samples, logits}. */
function check(entry, weights, samples) {
  const engine = new Engine(entry.model, weights);
  const scratch = new Float32Array(entry.model.classes);
  const found = { worst: 0, same: 0, compared: 0, samples: samples.count, logits: [] };
  for (let i = 0; i < samples.count; i++) {
    const given = samples.get(i);
    const expected = new Map(samples.reference(i));
    engine.reset();
    for (let t = 0; t < given.length; t++) {
      const logits = engine.step(given.at(t));
      const theirs = expected.get(t);
      if (!theirs) continue;
      for (let c = 0; c < logits.length; c++) found.worst = Math.max(found.worst, Math.abs(logits[c] - theirs[c]));
      found.same += softmax(logits, scratch) === softmax(theirs, scratch);
      found.compared += 1;
    }
    found.logits.push(Array.from(engine.logits));
  }
  return found;
}
