/* The page: buttons, time, and what is said of the run. Steps are taken as time passes; drawing happens at most once a
 * frame and paints only what is new, so that neither waits for the other. */
"use strict";

const BUDGET = 9; // milliseconds of a frame that steps may take
const FASTEST = 100; // the slider's end: as many steps as the budget holds
const PAUSE = { between: 1400, drawn: 450 }; // milliseconds: between two samples, and after the pen is lifted

class Page {
  constructor(entries) {
    this.entries = entries;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.playing = false;
    this.due = 0; // steps that time asks for and that were not taken yet
    this.waiting = null; // a timer that starts something
    this.colours = palette();
    $("go-on").checked = !this.still;
    if (entries.length > 1) this.listNetworks();
    this.listen();
    this.open(0);
  }

  /* --- networks and samples ------------------------------------------------------------------------------------ */

  listNetworks() {
    $("networks").hidden = false;
    this.entries.forEach((entry, k) => {
      const button = element("button", "", entry.name);
      button.type = "button";
      button.addEventListener("click", () => this.open(k));
      $("networks").append(button);
    });
  }

  open(k) {
    const entry = this.entries[k];
    [...$("networks").children].forEach((button, i) => button.setAttribute("aria-pressed", i === k));
    this.entry = entry;
    this.weights = tensors(entry.shapes, entry.weights);
    this.samples = new Samples(entry);
    this.run = new Run(new Engine(entry.model, this.weights));
    this.stopwatch = new Stopwatch(new Engine(entry.model, this.weights), this.samples.get(0));
    this.unit = entry.picture ? "pixel" : entry.model.encoder === "embedding" ? "token" : "step";
    this.pad?.remove();
    this.pad = entry.picture && new Pad($("pad"), entry.picture, (settled) => this.drawn(settled));
    makeRoom(entry.class_names);
    this.makeCharts();
    this.makeClasses();
    this.strip = new Strip($("samples"), this.samples, entry, (i) => this.choose(i));
    describe(entry, this.samples, this.unit);
    $("check-result").textContent = "";
    $("drawing").hidden = !this.pad;
    $("clear").hidden = !this.pad;
    $("fit-label").hidden = !this.pad || entry.picture.box === null;
    this.setSpeed(25 * Math.log10(this.samples.get(0).length / (this.pad ? 4 : 8)));
    this.choose(0);
  }

  /* Take a sample of the test set; `automatic` if nobody asked for it. */
  choose(i, automatic = false) {
    const count = this.samples.count;
    this.index = (i + count) % count;
    const given = this.samples.get(this.index);
    if (this.pad) {
      given.picture = true;
      this.pad.show(given.x);
    }
    this.strip.mark(this.index);
    $("sample-name").textContent = `${this.index + 1} of ${count}`;
    this.begin(given, automatic);
    if (this.still) this.finish();
    else this.play();
  }

  /* The drawing changed: while the pen is down (false), when it is lifted (true), or only the cursor moved (null). */
  drawn(settled) {
    this.refresh();
    if (settled === null) return;
    clearTimeout(this.waiting);
    this.pause();
    if (this.index !== null) {
      this.index = null;
      this.strip.mark(null);
      $("sample-name").textContent = "";
      if (!settled) this.pad.startOver();
    }
    this.begin(sequence(this.entry.model, this.pad.inputs(), { picture: true }));
    if (settled) this.waiting = setTimeout(() => (this.still ? this.finish() : this.play()), PAUSE.drawn);
  }

  clearPad() {
    if (!this.pad) return;
    this.pad.clear();
    this.index = null;
    this.strip.mark(null);
    $("sample-name").textContent = "";
    clearTimeout(this.waiting);
    this.pause();
    this.begin(sequence(this.entry.model, this.pad.inputs(), { picture: true }));
  }

  begin(given, automatic = false) {
    clearTimeout(this.waiting);
    this.automatic = automatic;
    this.run.start(given);
    this.due = 0;
    for (const chart of this.charts) chart.stale = true;
    if (!this.pad && this.entry.symbols) this.writeTokens();
    this.truth();
    this.refresh();
  }

  /* --- time ---------------------------------------------------------------------------------------------------- */

  setSpeed(value) {
    $("speed").value = Math.round(Math.min(FASTEST, Math.max(0, value)));
    this.speedChanged();
  }

  speedChanged() {
    const value = Number($("speed").value);
    this.speed = value >= FASTEST ? Infinity : 10 ** (value / 25);
    const shown = this.speed < 10 ? this.speed.toFixed(1) : number(this.speed);
    const text = this.speed === Infinity ? "as fast as it can" : `${shown} ${this.unit}s a second`;
    $("speed-text").textContent = text;
    $("speed").setAttribute("aria-valuetext", text);
  }

  play() {
    if (this.run.done) this.begin(this.run.sequence);
    this.playing = true;
    this.last = null;
    this.buttons();
    this.refresh();
  }

  pause() {
    this.playing = false;
    clearTimeout(this.waiting);
    this.buttons();
  }

  toggle() {
    const waits = this.run.done && this.playing;
    if (!this.playing) this.play();
    else {
      this.pause();
      if (!waits) this.say(`Paused after ${this.unit} ${this.run.t} of ${this.run.sequence.length}. ${this.sentence()}`);
    }
  }

  oneStep() {
    if (this.playing) this.pause();
    if (this.run.done) this.begin(this.run.sequence);
    this.run.step();
    if (this.run.done) this.ended();
    this.refresh();
  }

  restart() {
    this.begin(this.run.sequence);
    if (!this.still) this.play();
  }

  finish() {
    while (!this.run.done) this.run.step();
    this.ended();
    this.refresh();
  }

  ended() {
    if (!this.automatic) this.say(this.sentence());
    const goesOn = this.playing && this.index !== null && $("go-on").checked;
    if (goesOn) this.waiting = setTimeout(() => this.choose(this.index + 1, true), PAUSE.between);
    else this.playing = false;
    this.buttons();
  }

  /* Ask for a frame; there is never more than one under way. */
  refresh() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame((now) => {
      this.asked = false;
      this.frame(now);
    });
  }

  frame(now) {
    if (this.playing && !this.run.done) {
      const passed = this.last === null ? 16 : Math.min(100, now - this.last);
      this.last = now;
      this.due = Math.min(this.due + (this.speed * passed) / 1000, 1e9);
      this.advance();
      this.refresh();
    }
    this.draw();
  }

  advance() {
    const end = performance.now() + BUDGET;
    while (this.due >= 1 && !this.run.done) {
      this.run.step();
      this.due -= 1;
      if (performance.now() > end) this.due = Math.min(this.due, 1);
    }
    if (this.run.done) this.ended();
  }

  buttons() {
    $("play").setAttribute("aria-pressed", this.playing);
    $("play").lastElementChild.textContent = this.playing ? "Pause" : "Play";
  }

  /* --- what is drawn ------------------------------------------------------------------------------------------- */

  makeCharts() {
    const { model, class_names } = this.entry;
    for (const figure of $("charts").querySelectorAll("figure")) figure.remove();
    this.charts = [];
    this.captions = [];
    const add = (name, make) => {
      const figure = element("figure", "chart");
      const caption = element("figcaption");
      const value = element("span");
      caption.append(element("b", "", name), value);
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${name} over time`);
      figure.append(caption, canvas);
      $("charts").append(figure);
      const chart = make(canvas);
      this.charts.push(chart);
      this.captions.push(value);
      return chart;
    };
    if (model.encoder === "linear") add(this.pad ? "pixels" : "signal", (canvas) => new InputChart(canvas, model));
    this.rasters = Array.from({ length: model.layers }, (_, i) => {
      const raster = add(`spikes of layer ${i}`, (canvas) => new Raster(canvas, i, model));
      raster.caption = this.captions.at(-1);
      this.listenToRaster(raster);
      return raster;
    });
    this.potential = add("potential", (canvas) => new PotentialChart(canvas));
    this.potential.caption = this.captions.at(-1);
    this.classChart = add(model.decoder === "per_step" ? "what every step is" : "class probability", (canvas) => new ClassChart(canvas, class_names));
    $("layer").replaceChildren(...this.rasters.map((_, i) => new Option(i, i)));
    $("neuron").max = model.width - 1;
    this.watch(0, this.stopwatch.lively);
  }

  listenToRaster(raster) {
    const { canvas } = raster;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider"); // of the watched neuron
    canvas.setAttribute("aria-orientation", "vertical");
    canvas.setAttribute("aria-valuemin", 0);
    canvas.setAttribute("aria-valuemax", this.entry.model.width - 1);
    canvas.addEventListener("click", (event) => this.watch(raster.layer, raster.neuronAt(event.clientY)));
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const from = this.run.watched.layer === raster.layer ? this.run.watched.neuron + by : this.run.watched.neuron;
      this.watch(raster.layer, Math.min(this.entry.model.width - 1, Math.max(0, from)));
    });
  }

  watch(layer, neuron) {
    this.run.watch(layer, neuron);
    $("layer").value = layer;
    $("neuron").value = neuron;
    this.potential.fit(-0.5, 1.5);
    for (const chart of [...this.rasters, this.potential]) chart.stale = true;
    for (const { canvas } of this.rasters) canvas.setAttribute("aria-valuenow", neuron);
    this.rasters[layer].canvas.setAttribute("aria-valuetext", `neuron ${neuron}`);
    if (this.run.sequence) this.refresh();
  }

  makeClasses() {
    this.bars = this.entry.class_names.map((name) => {
      const item = element("li");
      const track = element("div", "track");
      const bar = element("div");
      track.append(bar);
      const value = element("span");
      item.append(element("span", "", name), track, value);
      item.firstChild.title = name;
      return { item, bar, value };
    });
    $("classes").replaceChildren(...this.bars.map((bar) => bar.item));
  }

  draw() {
    const { run, entry } = this;
    const L = run.sequence.length;
    for (const chart of this.charts) chart.paint(run, this.colours);
    this.pad?.paint(this.colours, run.t);
    const { column } = this.potential;
    $("head").style.transform = `translateX(${run.t * column}px)`;
    $("head").hidden = run.t === 0 || run.done;
    const best = run.t ? run.answers[run.t - 1] : 0;
    const answer = run.t ? ` · ${entry.class_names[best]}, ${percent(run.probabilities[(run.t - 1) * entry.model.classes + best])}` : "";
    $("progress").textContent = innerWidth < 700 ? `${run.t}/${L}${answer}` : `${this.unit} ${number(run.t)} of ${number(L)}${answer}`;
    $("bar").style.transform = `scaleX(${run.t / L})`;
    for (const raster of this.rasters) {
      const rate = run.t ? run.totals[raster.layer] / (run.t * entry.model.width) : 0;
      raster.caption.textContent = `${percent(rate)} fire`;
      raster.canvas.setAttribute("aria-label", `Spikes of layer ${raster.layer}, ${percent(rate)} fire; watched neuron`);
    }
    const { layer, neuron } = run.watched;
    this.potential.caption.textContent = `layer ${layer}, neuron ${neuron}`;
    this.equation();
    this.answer();
    this.work();
    if (entry.symbols) this.markToken();
  }

  /* The neuron's equation with the numbers of the latest step. */
  equation() {
    const { run } = this;
    const out = $("equation");
    if (!run.t) {
      out.textContent = "u′ = τu + I";
      return;
    }
    const { layer, neuron } = run.watched;
    const at = layer * this.entry.model.width + neuron;
    const [before, current] = [run.engine.before[at], run.engine.current[at]];
    const [leak, drive, sum] = [before - current, Math.abs(current), before].map((value) => value.toFixed(2).replace("-", "−"));
    const sign = current < 0 ? "−" : "+";
    const fires = before >= 1;
    out.replaceChildren(`u′ = τu + I = ${leak} ${sign} ${drive} = ${sum} ${fires ? "≥" : "<"} 1: `, element(fires ? "b" : "span", "", fires ? "fires" : "silent"));
    this.potential.canvas.setAttribute("aria-label", `Potential of layer ${layer}, neuron ${neuron}: ${out.textContent}`);
  }

  answer() {
    const { run, entry } = this;
    const classes = entry.model.classes;
    const shown = run.t ? run.probabilities.subarray((run.t - 1) * classes, run.t * classes) : null;
    const best = run.t ? run.answers[run.t - 1] : -1;
    const label = this.label();
    this.bars.forEach(({ item, bar, value }, c) => {
      const p = shown ? shown[c] : 0;
      bar.style.transform = `scaleX(${p})`;
      value.textContent = shown ? percent(p) : "";
      item.className = `${c === best ? "best" : ""} ${c === label ? "true" : ""}`;
    });
    $("verdict-word").textContent = run.done ? "reads" : entry.model.decoder === "per_step" ? "now" : "so far";
    $("verdict").textContent = best < 0 ? "–" : entry.class_names[best];
    $("verdict").classList.toggle("long", $("verdict").textContent.length > 4);
    $("verdict-p").textContent = shown ? `with ${percent(shown[best])}` : "";
    this.truth();
  }

  label() {
    const { sequence: given, t } = this.run;
    return given.labels ? given.labels[Math.max(0, t - 1)] : given.label;
  }

  /* Label and verdict, or that there is none. */
  truth() {
    const { run, entry } = this;
    const given = run.sequence;
    const label = this.label();
    const out = $("truth");
    if (given.labels) {
      const right = rightSteps(run);
      out.replaceChildren(`label ${label >= 0 ? entry.class_names[label] : "none"}`, element("span", "", run.t ? `; right so far ${percent(right)}` : ""));
    } else if (label === null) {
      out.textContent = "your drawing: only you know the label";
    } else if (run.done) {
      const right = run.answers[run.t - 1] === label;
      out.replaceChildren(`label ${entry.class_names[label]}: `, element("span", right ? "right" : "wrong", right ? "right ✓" : "wrong ✗"));
    } else {
      out.textContent = `label ${entry.class_names[label]}`;
    }
  }

  work() {
    const found = this.run.counters();
    const ratio = (id, done, dense) => {
      $(id).replaceChildren(number(done), element("small", "", ` of ${number(dense)} dense${dense ? `, ${percent(done / dense)}` : ""}`));
      $(`${id}-bar`).style.transform = `scaleX(${dense ? Math.min(1, done / dense) : 0})`;
    };
    $("spikes").replaceChildren(number(found.spikes), element("small", "", this.run.t ? `, ${percent(found.rate)} fire` : ""));
    ratio("mix", found.mix, found.mixDense);
    ratio("all", found.all, found.allDense);
    const time = this.stopwatch.microseconds(performance.now());
    $("time").textContent = `${time < 10 ? time.toFixed(1) : number(time)} µs`;
  }

  /* What a listener should know. */
  sentence() {
    const { run, entry } = this;
    if (!run.t) return "Nothing was read yet.";
    const best = run.answers[run.t - 1];
    const p = percent(run.probabilities[(run.t - 1) * entry.model.classes + best]);
    const given = run.sequence;
    if (given.labels) return `Steps right: ${percent(rightSteps(run))}.`;
    const label = given.label === null ? "" : ` The label is ${entry.class_names[given.label]}.`;
    return `Read as ${entry.class_names[best]} with ${p}.${label}`;
  }

  say(text) {
    $("spoken").textContent = text;
  }

  writeTokens() {
    const { x } = this.run.sequence;
    const symbols = this.entry.symbols;
    const joint = symbols.filter((symbol) => symbol.length > 1).length > symbols.length / 2 ? " " : "";
    $("tokens").hidden = false;
    $("tokens").replaceChildren(...Array.from(x, (id) => element("span", "", symbols[id] + joint)));
    this.token = 0;
  }

  markToken() {
    const marks = $("tokens").children;
    for (; this.token < this.run.t; this.token++) marks[this.token].className = "read";
    $("tokens").querySelector(".now")?.classList.remove("now");
    const now = marks[this.run.t - 1];
    if (!now) return;
    now.classList.add("now");
    $("tokens").scrollTop = now.offsetTop - $("tokens").offsetTop - $("tokens").clientHeight / 2;
  }

  /* --- listening ----------------------------------------------------------------------------------------------- */

  listen() {
    const click = (id, action) => $(id).addEventListener("click", action);
    click("play", () => this.toggle());
    click("step", () => this.oneStep());
    click("restart", () => this.restart());
    click("next", () => this.choose((this.index ?? -1) + 1));
    click("previous", () => this.choose((this.index ?? 1) - 1));
    click("clear", () => this.clearPad());
    click("theme", () => this.switchTheme());
    click("check", () => this.compare());
    $("speed").addEventListener("input", () => this.speedChanged());
    $("fit").addEventListener("change", () => {
      this.pad.fit = $("fit").checked;
      if (this.pad.strokes.length) {
        this.pad.rasterise(this.pad.fit);
        this.drawn(true);
      }
    });
    $("go-on").addEventListener("change", () => {
      if (this.run.done && !$("go-on").checked) this.pause();
    });
    $("layer").addEventListener("change", () => this.watch(Number($("layer").value), this.run.watched.neuron));
    $("neuron").addEventListener("change", () => {
      const asked = Math.round(Number($("neuron").value)) || 0;
      this.watch(this.run.watched.layer, Math.min(this.entry.model.width - 1, Math.max(0, asked)));
    });
    document.addEventListener("keydown", (event) => this.key(event));
    const again = () => this.repaint();
    new ResizeObserver(again).observe($("charts"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName, type } = event.target;
    if (tagName === "SELECT" || (tagName === "INPUT" && type === "number")) return;
    if (event.key === " " && (tagName === "BUTTON" || tagName === "INPUT")) return;
    const faster = (by) => this.setSpeed(Number($("speed").value) + by);
    const actions = {
      " ": () => this.toggle(),
      s: () => this.oneStep(),
      r: () => this.restart(),
      n: () => $("next").click(),
      p: () => $("previous").click(),
      c: () => this.clearPad(),
      "+": () => faster(5),
      "=": () => faster(5),
      "-": () => faster(-5),
    };
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /* Size or colours changed. */
  repaint() {
    this.colours = palette();
    for (const chart of this.charts) chart.stale = true;
    this.strip.paint(this.colours);
    this.refresh();
  }

  switchTheme() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    this.repaint();
  }

  compare() {
    const found = check(this.entry, this.weights, this.samples);
    const where = this.samples.perStep ? ` (some steps of ${found.samples} samples)` : "";
    $("check-result").textContent = `${number(found.same)} of ${number(found.compared)} answers${where} are equal; the largest difference of a logit is ${found.worst.toExponential(1)}.`;
  }
}

/* The share of the steps so far whose answer is their label. */
function rightSteps(run) {
  const { labels } = run.sequence;
  let [right, counted] = [0, 0];
  for (let t = 0; t < run.t; t++) {
    counted += labels[t] >= 0;
    right += labels[t] >= 0 && run.answers[t] === labels[t];
  }
  return counted ? right / counted : 0;
}

globalThis.live = new Page(JSON.parse($("data").textContent));
