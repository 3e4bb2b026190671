"""The numbers of an evaluation as plain data: what ``evaluation.json`` holds and the page shows."""

from __future__ import annotations

from typing import Any

from src.evaluation.activity import SATURATED, Activity
from src.evaluation.compare import side_by_side
from src.evaluation.energy import Constants, Shape, paper_count
from src.evaluation.sizes import shape_of
from src.module import SequenceModule


def summary(
    module: SequenceModule, activity: Activity, constants: Constants | None = None, level: str | None = None
) -> dict[str, Any]:
    """The numbers of the report.

    Args:
        level: the memory the energy is counted with, see :func:`src.evaluation.compare.side_by_side`.

    Raises:
        UserError: an unknown level.
    """
    rates = [layer.rate for layer in activity.layers]
    shape = shape_of(module, activity.mean_length, rates)
    mean_rate = sum(rates) / len(rates)
    steps = activity.mean_length
    return {
        "figures": activity.figures,
        "samples": activity.samples,
        "mean_length": steps,
        "neuron": activity.neuron,
        "spiking": activity.binary,
        "firing_rate": mean_rate,
        "synaptic_operations": sum(rate * 2 * shape.d_model**2 * steps for rate in rates),
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
        "energy": _energy(shape, activity, constants, level),
        "paper_count": paper_count(len(rates), shape.d_model, steps, mean_rate, constants) if activity.binary else None,
        "surrogate": _surrogate(activity),
    }


def _energy(shape: Shape, activity: Activity, constants: Constants | None, level: str | None) -> dict[str, Any]:
    """Side by side; of a network without spikes the dense forms alone."""
    energy = side_by_side(shape, constants, level)
    if not activity.binary:
        for form in ("spiking", "spiking_int8"):
            energy[form] = None
        energy["break_even"] = []
    return energy


def _surrogate(activity: Activity) -> dict[str, Any]:
    """The comparison with the other kind of neuron, or why there is none."""
    if activity.swapped is None:
        return {"compared_with": None, "why_not": activity.why_not_swapped}
    return {
        "compared_with": activity.swapped.neuron,
        "figures": activity.swapped.figures,
        "changed_predictions": activity.swapped.changed_predictions,
        "layers": [
            {
                "wrong_over_true": layer.wrong / max(layer.true, 1.0),
                "spike_accuracy": 1 - layer.wrong / max(layer.steps * len(layer.fired), 1.0),
                "no_memory_wrong_over_true": layer.memoryless_wrong / max(layer.true, 1.0),
            }
            for layer in activity.layers
        ],
    }


def _histogram(rates: list[float], bins: int = 20) -> list[int]:
    counts = [0] * bins
    for rate in rates:
        counts[min(int(rate * bins), bins - 1)] += 1
    return counts
