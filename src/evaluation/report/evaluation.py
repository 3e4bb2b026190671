"""The evaluation of one network as a page: rates, raster, thresholds, energy, surrogate error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.evaluation.activity import Activity
from src.evaluation.compare import FORMS, MEANING
from src.evaluation.report import figures
from src.evaluation.report.page import Section, Table, drawing, write_page

NAMES = {
    "spiking": "spikes",
    "dense": "dense",
    "spiking_int8": "spikes, 8-bit weights",
    "dense_int8": "dense, 8 bits",
}


def evaluation_page(path: str | Path, module: nn.Module, activity: Activity, result: Mapping[str, Any]) -> None:
    """Write the page; ``result`` is :func:`src.evaluation.summary.summary`."""
    energy = result["energy"]
    facts = [(f"{value:.4g}", name) for name, value in result["figures"].items()]
    facts.append((f"{result['firing_rate']:.1%}", "mean firing rate" if result["spiking"] else "of outputs not 0"))
    own = energy["spiking"] or energy["dense"]
    facts.append((f"{own['joules_with_memory'] * 1e6:.3g} µJ", "a sample, operations and memory"))
    if energy["spiking"]:
        ratio = energy["dense_int8"]["joules_with_memory"] / energy["spiking"]["joules_with_memory"]
        facts.append((f"{ratio:.2f}x", "that is what a dense 8-bit twin takes"))
    lead = (
        f"{result['checkpoint']}: {result['samples']} samples of the {result['split']} set, "
        f"{result['mean_length']:.0f} steps each on average, neuron {result['neuron']}."
    )
    sections = [
        _spikes(activity, result, module.facts().get("class_names")),
        _thresholds(module),
        _energy(result),
        _break_even(result),
        _surrogate(result),
    ]
    if activity.predictions is not None:
        sections.insert(1, _confusion(activity))
    write_page(path, "Evaluation", lead, facts, [section for section in sections if section])


def _spikes(activity: Activity, result: Mapping[str, Any], names: Sequence[str] | None) -> Section:
    rows = [
        [f"layer {i}", f"{la['firing_rate']:.2%}", f"{la['dead']} of {la['neurons']}", str(la["saturated"])]
        for i, la in enumerate(result["layers"])
    ]
    signal = None
    if activity.sample is not None and activity.sample.is_floating_point() and activity.sample.shape[-1] == 1:
        signal = activity.sample[:, 0].numpy()
    raster = figures.raster([s.numpy() for s in activity.raster], signal)
    rates = figures.rates_by_layer([layer.rates.numpy() for layer in activity.layers])
    shown = "One sample" if activity.reading is None else f"One sample, {activity.reading.words(names)}"
    return Section(
        "Spikes",
        table=Table(["", "firing rate", "dead neurons", "saturated neurons"], rows),
        pictures=[
            (drawing(rates), "Firing rate by layer and over the neurons of a layer."),
            (drawing(raster), f"{shown}: its input, where it is one number a step, and the spikes of every layer."),
        ],
        note=f"{result['synaptic_operations']:.3g} synaptic operations a sequence: weights added because of a spike.",
    )


def _confusion(activity: Activity) -> Section:
    classes = int(max(activity.predictions.max(), activity.targets.max())) + 1
    picture = figures.confusion(activity.predictions.cpu(), activity.targets.cpu(), classes)
    return Section("Confusion", pictures=[(drawing(picture), "Predicted against true classes.")])


def _thresholds(module: nn.Module) -> Section | None:
    learnt = [
        layer.ln_vth.detach().exp().cpu()
        for layer in module.backbone.layers
        if getattr(layer, "ln_vth", None) is not None
    ]
    if not learnt:
        return None
    picture = figures.thresholds([v.cpu().numpy() for v in learnt])
    spread = torch.cat(learnt)
    text = f"Thresholds start at 1 and were learnt to lie between {spread.min():.3g} and {spread.max():.3g}."
    return Section("Thresholds", text, pictures=[(drawing(picture), "Learnt thresholds of each layer.")])


def _by_kind(parts: list[dict[str, Any]]) -> dict[str, float]:
    """Joules with memory summed over layers: encoder, ssm state, neuron, mix, ..."""
    kinds: dict[str, float] = {}
    for part in parts:
        words = part["part"].split()
        kind = " ".join(words[2:]) if words[0] == "layer" else part["part"]
        kinds[kind] = kinds.get(kind, 0.0) + part["joules_with_memory"]
    return kinds


def rate_words(rate: float) -> str:
    """A break-even rate for people."""
    return "never" if rate <= 0 else "at any rate" if rate >= 1 else f"{rate:.1%}"


def _energy(result: Mapping[str, Any]) -> Section:
    energy = result["energy"]
    memory, cost = energy["memory"], energy["constants"]
    forms = [form for form in FORMS if energy[form]]
    rows = [
        [
            NAMES[form],
            f"{energy[form]['joules'] * 1e6:.4g}",
            f"{energy[form]['joules_with_memory'] * 1e6:.4g}",
            f"{energy[form]['bytes'] / 1e3:,.0f}",
        ]
        for form in forms
    ]
    note = " ".join(MEANING)
    if paper := result["paper_count"]:
        note += (
            f" The paper's narrower count, the mix alone: {paper['dense_joules'] * 1e6:.4g} µJ dense, "
            f"{paper['spiking_joules'] * 1e6:.4g} µJ with spikes."
        )
    return Section(
        "Energy",
        "Every part of the recurrent form is counted, one sample at a time. First the usual proxy: "
        f"{cost['mac_pj']:g} pJ a multiply-accumulate and {cost['ac_pj']:g} pJ an accumulate in 32-bit floats (8-bit: "
        f"{cost['mac8_pj']:g} and {cost['ac8_pj']:g} pJ). Then with every weight, state and activation that is read or "
        f"written: {memory['network_bytes'] / 1e3:.0f} kB of network in a memory of {memory['level']}, "
        f"{memory['pj_per_byte']:g} pJ a byte. The energies are of 45 nm circuits (Horowitz, ISSCC 2014).",
        table=Table(["", "operations, µJ", "with memory, µJ", "kB moved a sample"], rows),
        pictures=[
            (
                drawing(figures.energy_bars({NAMES[form]: _by_kind(energy[form]["parts"]) for form in forms})),
                "Energy of one sample with memory, by part.",
            )
        ],
        note=note,
    )


def _break_even(result: Mapping[str, Any]) -> Section | None:
    rows = [
        [
            f"{NAMES[row['form']]} against {NAMES[row['twin']]}",
            rate_words(row["operations"]),
            rate_words(row["with_memory"]),
        ]
        for row in result["energy"]["break_even"]
    ]
    if not rows:
        return None
    return Section(
        "Break-even firing rate",
        "Up to this rate the network with spikes takes less energy than the twin; "
        f"it fires at {result['firing_rate']:.1%}.",
        table=Table(["", "operations", "with memory"], rows),
    )


def _surrogate(result: Mapping[str, Any]) -> Section:
    surrogate = result["surrogate"]
    if surrogate["compared_with"] is None:
        return Section("Surrogate against exact neuron", f"Left out: {surrogate['why_not']}.")
    rows = [
        [
            f"layer {i}",
            f"{la['wrong_over_true']:.5f}",
            f"{la['no_memory_wrong_over_true']:.5f}",
            f"{la['spike_accuracy']:.6f}",
        ]
        for i, la in enumerate(surrogate["layers"])
    ]
    own = ", ".join(f"{name} {value:.4g}" for name, value in result["figures"].items())
    other = ", ".join(f"{name} {value:.4g}" for name, value in surrogate["figures"].items())
    changed = surrogate["changed_predictions"]
    note = f"With {result['neuron']}: {own}. The same weights with {surrogate['compared_with']}: {other}."
    if changed is not None:
        note += f" {changed} of {result['samples']} predictions change."
    return Section(
        "Surrogate against exact neuron",
        "On the currents that really arrive at each layer: spikes in which the SDN and the exact neuron differ, over "
        "the spikes of the exact neuron. A neuron without memory, s = H(I - 1), is the baseline that says how much "
        "of this any surrogate must get right.",
        table=Table(["", "SDN wrong / true", "no memory wrong / true", "SDN spike accuracy"], rows),
        note=note,
    )
