"""The evaluation of one network as a page: rates, raster, thresholds, energy, surrogate error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.evaluation.activity import Activity
from src.evaluation.report import figures
from src.evaluation.report.page import Section, Table, data_uri, write_page


def evaluation_page(path: str | Path, module: nn.Module, activity: Activity, result: Mapping[str, Any]) -> None:
    """Write the page; ``result`` is :func:`src.evaluation.summary.summary`."""
    energy = result["energy"]
    ratio = energy["dense"]["joules"] / energy["spiking"]["joules"]
    facts = [(f"{value:.4g}", name) for name, value in result["figures"].items()]
    facts += [
        (f"{result['firing_rate']:.1%}", "mean firing rate"),
        (f"{energy['spiking']['joules'] * 1e6:.3g} µJ", "a sequence, every part counted"),
        (f"{ratio:.2f}x", "less than with dense activations"),
    ]
    lead = (
        f"{result['checkpoint']}: {result['samples']} samples of the {result['split']} set, "
        f"{result['mean_length']:.0f} steps long on average, neuron {result['neuron']}."
    )
    sections = [_spikes(activity, result), _thresholds(module), _energy(result), _surrogate(result)]
    if activity.predictions is not None:
        sections.insert(1, _confusion(activity))
    write_page(path, "Evaluation", lead, facts, [section for section in sections if section])


def _spikes(activity: Activity, result: Mapping[str, Any]) -> Section:
    rows = [
        [f"layer {i}", f"{la['firing_rate']:.2%}", f"{la['dead']} of {la['neurons']}", str(la["saturated"])]
        for i, la in enumerate(result["layers"])
    ]
    signal = None
    if activity.sample is not None and activity.sample.is_floating_point() and activity.sample.shape[-1] == 1:
        signal = activity.sample[:, 0].numpy()
    raster = figures.raster([s.numpy() for s in activity.raster], signal)
    rates = figures.rates_by_layer([layer.rates.numpy() for layer in activity.layers])
    return Section(
        "Spikes",
        table=Table(["", "firing rate", "dead neurons", "saturated neurons"], rows),
        pictures=[
            (data_uri(rates), "Firing rate by layer and over the neurons of a layer."),
            (data_uri(raster), "One sample: its input, where it is one number a step, and the spikes of every layer."),
        ],
        note=f"{result['synaptic_operations']:.3g} synaptic operations a sequence: weights added because of a spike.",
    )


def _confusion(activity: Activity) -> Section:
    classes = int(max(activity.predictions.max(), activity.targets.max())) + 1
    picture = figures.confusion(activity.predictions.cpu(), activity.targets.cpu(), classes)
    return Section("Confusion", pictures=[(data_uri(picture), "Predicted against true classes.")])


def _thresholds(module: nn.Module) -> Section | None:
    learnt = [layer.ln_vth.detach().exp() for layer in module.backbone.layers if layer.ln_vth is not None]
    if not learnt:
        return None
    picture = figures.thresholds([v.cpu().numpy() for v in learnt])
    spread = torch.cat(learnt)
    text = f"Thresholds start at 1 and were learnt to lie between {spread.min():.3g} and {spread.max():.3g}."
    return Section("Thresholds", text, pictures=[(data_uri(picture), "Learnt thresholds of each layer.")])


def _by_kind(parts: list[dict[str, Any]]) -> dict[str, float]:
    """Joules summed over layers: encoder, ssm state, neuron, mix, ..."""
    kinds: dict[str, float] = {}
    for part in parts:
        words = part["part"].split()
        kind = " ".join(words[2:]) if words[0] == "layer" else part["part"]
        kinds[kind] = kinds.get(kind, 0.0) + part["joules"]
    return kinds


def _energy(result: Mapping[str, Any]) -> Section:
    spiking, dense = (_by_kind(result["energy"][kind]["parts"]) for kind in ("spiking", "dense"))
    rows = [[kind, f"{dense[kind] * 1e6:.4g}", f"{spiking[kind] * 1e6:.4g}"] for kind in spiking]
    rows.append(["total", f"{sum(dense.values()) * 1e6:.4g}", f"{sum(spiking.values()) * 1e6:.4g}"])
    paper = result["paper_count"]
    return Section(
        "Energy",
        "Multiply-accumulates and accumulates of the recurrent form, each at the energy of 32-bit arithmetic in 45 nm; "
        "memory is not in the model. Every part is counted, not the mix alone.",
        table=Table(["part", "dense activations, µJ", "spikes, µJ"], rows),
        pictures=[(data_uri(figures.energy_bars(spiking, dense)), "Energy of one sequence by part.")],
        note=(
            f"The paper's narrower count, the mix alone: {paper['dense_joules'] * 1e6:.4g} µJ dense, "
            f"{paper['spiking_joules'] * 1e6:.4g} µJ with spikes."
        ),
    )


def _surrogate(result: Mapping[str, Any]) -> Section:
    surrogate = result["surrogate"]
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
