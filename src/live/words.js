/* Numbers and words: how figures are written, and what of the page depends on the network. */
"use strict";

const $ = (id) => document.getElementById(id);
const percent = (share) => {
  const fine = share >= 0.0005 && (share < 0.0995 || (share > 0.9895 && share < 0.9995));
  return `${(100 * share).toFixed(fine ? 1 : 0)} %`;
};
const number = (value) => Math.round(value).toLocaleString("en", value < 1e6 ? {} : { notation: "compact", maximumSignificantDigits: 3 });

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/* Words that depend on the network: the lead, the conditions and numbers of the explanation, the facts. */
function describe(entry, samples, unit) {
  const { model } = entry;
  const length = samples.get(0).length;
  const layers = `${model.layers} ${model.layers === 1 ? "layer" : "layers"} of ${model.width} neurons`;
  const start = `This file is a trained network, ${layers}, running in your browser.`;
  $("lead").textContent = entry.picture
    ? `${start} Write something or take a sample: ${number(length)} pixels arrive one by one, and a neuron speaks only when its potential reaches the threshold.`
    : `${start} A sequence arrives ${unit} by ${unit}, a neuron speaks only when its potential reaches the threshold, and ${samples.perStep ? "every step is named as it comes" : "the answer grows with every step"}.`;
  for (const part of document.querySelectorAll("[data-word=step]")) part.textContent = unit === "step" ? "sample" : unit;
  const facts = { layers, width: model.width, modes: model.modes, column: 2 * model.width };
  for (const part of document.querySelectorAll("[data-fact]")) part.textContent = facts[part.dataset.fact];
  for (const part of document.querySelectorAll("[data-if]")) {
    const [, option, sign, value] = part.dataset.if.match(/^(\w+)(!?=)(\w+)$/);
    part.hidden = (String(model[option]) === value) !== (sign === "=");
  }
  $("about").textContent = entry.about;
  const rows = { weights: number(entry.parameters), "complex modes": number(model.layers * model.width * model.modes), ...entry.facts };
  if (!samples.perStep) {
    let right = 0;
    for (let i = 0; i < samples.count; i++) right += samples.read(i) === samples.get(i).label;
    rows["samples here read right"] = `${right} of ${samples.count}`;
  }
  $("facts").replaceChildren(
    ...Object.entries(rows).map(([name, value]) => {
      const row = element("div");
      row.append(element("dt", "", name), element("dd", "", String(value)));
      return row;
    }),
  );
}
