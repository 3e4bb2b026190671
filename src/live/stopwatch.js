/* Times steps of a second engine, a few milliseconds of them in a row and twice a second at most: the clock of a browser
 * is too coarse for a single one. */
"use strict";

class Stopwatch {
  constructor(engine, given) {
    this.engine = engine;
    this.given = given;
    this.t = 0;
    this.next = 0;
    this.found = [];
    this.lively = this.warm();
  }

  /* Run the beginning of a sample; returns the neuron of layer 0 whose rate is nearest to a quarter. */
  warm() {
    const { engine, given } = this;
    const spikes = new Float64Array(engine.model.width);
    while (this.t < Math.min(given.length, 256)) {
      this.step();
      for (let k = 0; k < engine.counts[0]; k++) spikes[engine.fired[0][k]] += 1;
    }
    const far = Array.from(spikes, (n) => Math.abs(n / this.t - 0.25));
    return far.indexOf(Math.min(...far));
  }

  step() {
    if (this.t === this.given.length) {
      this.t = 0;
      this.engine.reset();
    }
    this.engine.step(this.given.at(this.t++));
  }

  /* The best of the last measurements: the others had to wait for something else. */
  microseconds(now) {
    if (now >= this.next) {
      this.next = now + 500;
      const start = performance.now();
      let [steps, spent] = [0, 0];
      while (spent < 1) {
        for (let k = 0; k < 8; k++) this.step();
        steps += 8;
        spent = performance.now() - start;
      }
      this.found = [...this.found.slice(-14), (1000 * spent) / steps];
    }
    return Math.min(...this.found);
  }
}
