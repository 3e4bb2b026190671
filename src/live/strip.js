/* The samples to choose from: pictures, signals or text. One of them can be reached by the tab key, the others by
 * arrows. */
"use strict";

class Strip {
  constructor(box, samples, entry, choose) {
    this.box = box;
    this.samples = samples;
    this.entry = entry;
    box.classList.toggle("wide", !entry.picture);
    this.buttons = Array.from({ length: samples.count }, (_, i) => this.button(i));
    this.buttons.forEach((button, i) => button.addEventListener("click", () => choose(i)));
    box.replaceChildren(...this.buttons);
    box.onkeydown = (event) => this.key(event);
    $("missed").hidden = !box.querySelector(".missed");
    this.paint(palette());
  }

  button(i) {
    const { entry, samples } = this;
    const given = samples.get(i);
    const button = element("button");
    button.type = "button";
    const name = (c) => entry.class_names[c];
    const read = samples.read(i);
    let about = `sample ${i + 1}`;
    if (!given.labels) {
      about += `, label ${name(given.label)}, read as ${name(read)}`;
      button.classList.toggle("missed", read !== given.label);
    }
    button.title = about;
    button.setAttribute("aria-label", about);
    if (entry.picture) {
      button.append(element("canvas"));
    } else {
      const shown = entry.symbols ? element("span", "text", Array.from(given.x.subarray(0, 40), (id) => entry.symbols[id]).join("")) : element("canvas");
      button.append(element("span", "", String(i + 1)), shown);
      if (!given.labels) button.append(element("span", "about", name(given.label)));
    }
    return button;
  }

  mark(index) {
    this.buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", i === index);
      button.tabIndex = i === (index ?? 0) ? 0 : -1;
    });
    if (index === null) return;
    const [button, box] = [this.buttons[index], this.box];
    const top = button.offsetTop - box.offsetTop;
    if (top < box.scrollTop || top + button.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - 8;
  }

  key(event) {
    const at = this.buttons.indexOf(document.activeElement);
    const across = this.entry.picture ? Math.max(1, Math.round(this.box.clientWidth / (this.buttons[0].offsetWidth + 4))) : 1;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (at < 0 || !by) return;
    event.preventDefault();
    this.buttons[Math.min(this.buttons.length - 1, Math.max(0, at + by))].focus();
  }

  paint(colours) {
    this.buttons.forEach((button, i) => {
      const canvas = button.querySelector("canvas");
      if (!canvas) return;
      const given = this.samples.get(i);
      if (this.entry.picture) thumbnail(canvas, given.x, this.entry.picture, colours);
      else sparkline(canvas, given, colours);
    });
  }
}

function thumbnail(canvas, x, picture, colours) {
  canvas.width = picture.columns;
  canvas.height = picture.rows;
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = colours.ink;
  for (let t = 0; t < x.length; t++) {
    const at = picture.order ? picture.order[t] : t;
    ctx.globalAlpha = Math.min(1, Math.max(0, (x[t] - picture.paper) / (picture.ink - picture.paper)));
    ctx.fillRect(at % picture.columns, Math.floor(at / picture.columns), 1, 1);
  }
}

/* The first input of a signal, at 200 points. */
function sparkline(canvas, given, colours) {
  const points = Math.min(200, given.length);
  canvas.width = 2 * points;
  canvas.height = 48;
  const ctx = canvas.getContext("2d");
  let [low, high] = [Infinity, -Infinity];
  for (let t = 0; t < given.length; t++) {
    low = Math.min(low, given.x[t * given.width]);
    high = Math.max(high, given.x[t * given.width]);
  }
  ctx.strokeStyle = colours.soft;
  ctx.lineWidth = 2;
  ctx.beginPath();
  const y = (t) => 44 - (40 * (given.x[t * given.width] - low)) / (high - low || 1);
  const every = given.length / points;
  for (let k = 0; k < points; k++) {
    let [from, to] = [Infinity, -Infinity];
    for (let t = Math.floor(k * every); t < (k + 1) * every && t < given.length; t++) {
      from = Math.min(from, y(t));
      to = Math.max(to, y(t));
    }
    ctx.lineTo(2 * k, from);
    if (to !== from) ctx.lineTo(2 * k, to);
  }
  ctx.stroke();
}
