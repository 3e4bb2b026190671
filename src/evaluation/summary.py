"""The numbers of an evaluation as plain data: what ``evaluation.json`` holds and the page shows."""

from __future__ import annotations

from typing import Any

from src.evaluation.activity import SATURATED, Activity
from src.evaluation.energy import Constants, count, paper_count, total
from src.evaluation.sizes import shape_of
from src.module import SequenceModule


def summary(module: SequenceModule, activity: Activity, constants: Constants) -> dict[str, Any]:
    """The numbers of the report as plain data."""
    shape = shape_of(module, activity.mean_length, [layer.rate for layer in activity.layers])
    energy = {}
    for name, spiking in (("spiking", True), ("dense", False)):
        parts = count(shape, constants, spiking)
        energy[name] = {
            "joules": total(parts).joules(constants),
            "mac": total(parts).mac,
            "ac": total(parts).ac,
            "parts": [{"part": p.part, "mac": p.mac, "ac": p.ac, "joules": p.joules(constants)} for p in parts],
        }
    rates = [layer.rate for layer in activity.layers]
    mean_rate = sum(rates) / len(rates)
    return {
        "figures": activity.figures,
        "samples": activity.samples,
        "mean_length": activity.mean_length,
        "neuron": activity.neuron,
        "firing_rate": mean_rate,
        "synaptic_operations": sum(rate * 2 * shape.d_model**2 * activity.mean_length for rate in rates),
        "layers": [
            {
                "firing_rate": layer.rate,
                "dead": int((layer.fired == 0).sum()),
                "saturated": int((layer.rates >= SATURATED).sum()),
                "neurons": len(layer.fired),
                "rate_histogram": _histogram(layer.rates.tolist()),
            }
            for layer in activity.layers
        ],
        "energy": energy,
        "paper_count": paper_count(len(rates), shape.d_model, activity.mean_length, mean_rate, constants),
        "surrogate": {
            "compared_with": activity.swapped_neuron,
            "figures": activity.swapped_figures,
            "changed_predictions": activity.changed_predictions if activity.predictions is not None else None,
            "layers": [
                {
                    "wrong_over_true": layer.wrong / max(layer.true, 1.0),
                    "spike_accuracy": 1 - layer.wrong / max(layer.steps * len(layer.fired), 1.0),
                    "no_memory_wrong_over_true": layer.memoryless_wrong / max(layer.true, 1.0),
                }
                for layer in activity.layers
            ],
        },
    }


def _histogram(rates: list[float], bins: int = 20) -> list[int]:
    counts = [0] * bins
    for rate in rates:
        counts[min(int(rate * bins), bins - 1)] += 1
    return counts
