/* The engine: a trained network, one sample at a time, in plain JavaScript.
 *
 * Shapes: n layers, H channels, N complex modes a channel, C classes. Every tensor is one flat Float32Array in row-major
 * order. A sum is taken in double precision, as JavaScript does, and what is kept is rounded to float32: by storing it
 * in a typed array, or by Math.fround where a spike is decided on a number that is not stored yet.
 */
"use strict";

class Engine {
  /* model: the sizes and options below; weights: name -> typed array; Real: the type of the state (float32, or
   * Float64Array for a comparison without rounding). */
  constructor(model, weights, Real = Float32Array) {
    const { layers, width, modes, classes } = model;
    this.model = model;
    this.weights = weights;
    this.round = Real === Float32Array ? Math.fround : (value) => value;
    this.re = new Real(layers * width * modes); // h, the modes of every channel
    this.im = new Real(layers * width * modes);
    this.u = new Real(layers * width); // potential of every neuron after its reset
    this.before = new Real(layers * width); // u', the same before the reset: what is compared with the threshold
    this.current = new Real(layers * width); // I, what arrives at the neuron
    this.fired = Array.from({ length: layers }, () => new Int32Array(width)); // indices of the neurons that fired
    this.counts = new Int32Array(layers); // how many of them count
    this.x = new Real(width); // the stream that passes through the layers
    this.z = new Real(width);
    this.ab = new Real(2 * width);
    this.summary = new Real(width);
    this.logits = new Real(classes);
    this.operations = operations(model);
    this.reset();
  }

  /* The state before the first sample: everything is zero. */
  reset() {
    for (const array of [this.re, this.im, this.u, this.before, this.current, this.summary, this.logits]) array.fill(0);
    this.counts.fill(0);
    this.steps = 0;
  }

  /* One sample (an array of inputs, or a token id) -> the logits after it. The array is used again by the next step. */
  step(input) {
    const { layers, prenorm } = this.model;
    this.encode(input);
    for (let i = 0; i < layers; i++) {
      if (prenorm) this.norm(i, this.x, this.z);
      else this.z.set(this.x);
      this.stateAndNeurons(i);
      this.mix(i);
      if (!prenorm) this.norm(i, this.x, this.x);
    }
    this.steps += 1;
    return this.decode();
  }

  /* Encoder:  x = W input + b,  or the row of a table for a token. */
  encode(input) {
    const { width, encoder } = this.model;
    const { encoder_weight: W, encoder_bias: b } = this.weights;
    if (encoder === "embedding") {
      this.x.set(W.subarray(input * width, (input + 1) * width));
      return;
    }
    for (let h = 0; h < width; h++) {
      let sum = b[h];
      for (let k = 0; k < input.length; k++) sum += W[k * width + h] * input[k];
      this.x[h] = sum;
    }
  }

  /* State space and neuron of layer i, for every channel:
   *
   *     h_t = A h_{t-1} + z_t            A, h complex, N modes; A = exp(dt (-a + ib)): they decay and turn
   *     I_t = Re(C h_t) + D z_t          the current, in units of the threshold; C holds B and a factor 2
   *     u'_t = tau u_{t-1} + I_t         the neuron leaks and integrates ...
   *     s_t = 1 if u'_t >= 1 else 0      ... fires at the threshold ...
   *     u_t = s_t ? u_r : u'_t           ... and is reset to u_r (hard), or loses 1: u_t = u'_t - s_t (soft)
   */
  stateAndNeurons(i) {
    const { width: H, modes: N, reset } = this.model;
    const { a_re, a_im, c_re, c_im, D, tau, u_r } = this.weights;
    const { re, im, u, before, current, z, round } = this;
    const fired = this.fired[i];
    const soft = reset === "soft";
    let count = 0;
    for (let h = 0; h < H; h++) {
      const neuron = i * H + h;
      const x = z[h];
      let I = D[neuron] * x;
      for (let k = neuron * N, end = k + N; k < end; k++) {
        const real = a_re[k] * re[k] - a_im[k] * im[k] + x;
        const imaginary = a_re[k] * im[k] + a_im[k] * re[k];
        I += c_re[k] * real - c_im[k] * imaginary;
        re[k] = real;
        im[k] = imaginary;
      }
      const potential = round(tau[neuron] * u[neuron] + I);
      current[neuron] = I;
      before[neuron] = potential;
      if (potential >= 1) {
        fired[count++] = h;
        u[neuron] = soft ? potential - 1 : u_r[neuron];
      } else {
        u[neuron] = potential;
      }
    }
    this.counts[i] = count;
  }

  /* Mix, gate and residual of layer i. A spike is 1, so W s needs no product: it is the sum of the columns of W that
   * belong to the neurons that fired.
   *
   *     [a; b] = W s + bias              2H numbers; the column of neuron h is the row h of the stored array
   *     x = x + a sigmoid(b)             the gated linear unit, added to the stream
   */
  mix(i) {
    const H = this.model.width;
    const { mix: W, mix_bias: bias } = this.weights;
    const { x, ab } = this;
    const fired = this.fired[i];
    for (let j = 0; j < 2 * H; j++) ab[j] = bias[i * 2 * H + j];
    for (let k = 0; k < this.counts[i]; k++) {
      const column = (i * H + fired[k]) * 2 * H;
      for (let j = 0; j < 2 * H; j++) ab[j] += W[column + j];
    }
    for (let h = 0; h < H; h++) x[h] += ab[h] / (1 + Math.exp(-ab[H + h]));
  }

  /* Norm of layer i, from -> to:
   *
   *     affine (a batch norm with its statistics folded in)     y = scale x + shift
   *     layer                                                   y = scale (x - mean) / sqrt(var + eps) + shift
   */
  norm(i, from, to) {
    const { width: H, norm, eps } = this.model;
    const { scale, shift } = this.weights;
    if (norm === "none") {
      if (to !== from) to.set(from);
      return;
    }
    let mean = 0;
    let factor = 1;
    if (norm === "layer") {
      for (let h = 0; h < H; h++) mean += from[h];
      mean /= H;
      let variance = 0;
      for (let h = 0; h < H; h++) variance += (from[h] - mean) * (from[h] - mean);
      factor = 1 / Math.sqrt(variance / H + eps);
    }
    for (let h = 0; h < H; h++) to[h] = (from[h] - mean) * factor * scale[i * H + h] + shift[i * H + h];
  }

  /* Decoder:  logits = W y + b,  y the mean of the stream so far (pool), or the stream now (last, per_step). */
  decode() {
    const { width: H, classes, decoder } = this.model;
    const { decoder_weight: W, decoder_bias: b } = this.weights;
    const pool = decoder === "pool";
    if (pool) for (let h = 0; h < H; h++) this.summary[h] += this.x[h];
    const y = pool ? this.summary : this.x;
    const share = pool ? 1 / this.steps : 1;
    for (let c = 0; c < classes; c++) {
      let sum = 0;
      for (let h = 0; h < H; h++) sum += W[c * H + h] * y[h];
      this.logits[c] = sum * share + b[c];
    }
    return this.logits;
  }
}

/* What one step costs in multiplications and additions, a multiply-accumulate counted once, and every part of it, not the
 * mix alone. With S spikes the event-driven step takes rest + column S of them; a network whose layers hand on real
 * numbers has no neuron but takes the whole product: dense. */
function operations(model) {
  const { layers, width: H, modes: N, inputs, classes, norm, decoder, encoder } = model;
  const encode = encoder === "embedding" ? 0 : H * inputs + H;
  const state = H * (6 * N + 1) + H * N; // A h: 4, C h: 2, + z: 1 a mode; D z
  const neuron = 3 * H; // tau u, + I, compare
  const gate = H * (1 + 4); // a sigmoid counts as four
  const normed = { none: 0, affine: 2, layer: 7 }[norm] * H;
  const residual = H;
  const bias = 2 * H;
  const decode = classes * H + classes + (decoder === "pool" ? H : 0);
  const both = encode + layers * (state + bias + gate + normed + residual) + decode;
  return { rest: both + layers * neuron, column: 2 * H, dense: both + layers * 2 * H * H };
}

/* p_c = exp(logit_c) / sum over the classes, written to `out`; returns the likeliest class. */
function softmax(logits, out) {
  let best = 0;
  for (let c = 1; c < logits.length; c++) if (logits[c] > logits[best]) best = c;
  let sum = 0;
  for (let c = 0; c < logits.length; c++) sum += out[c] = Math.exp(logits[c] - logits[best]);
  for (let c = 0; c < logits.length; c++) out[c] /= sum;
  return best;
}

/* Typed arrays from the text of the page: little-endian bytes in base64. */
function unpack(base64, Type = Float32Array) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}

/* name -> typed array, from one block and the shapes of the tensors in it, in order. */
function tensors(shapes, base64, Type = Float32Array) {
  const all = unpack(base64, Type);
  const found = {};
  let start = 0;
  for (const [name, shape] of shapes) {
    const size = shape.reduce((product, side) => product * side, 1);
    found[name] = all.subarray(start, start + size);
    start += size;
  }
  return found;
}
