"""What a trained network does on data: its figures, its spikes, and what changes with the other kind of neuron."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.spike.lengths import real_steps
from sdn.errors import UserError
from sdn.neurons import SDNNeuron, make_neuron
from src.callbacks.firing_rate import neurons
from src.module import SequenceModule
from src.tasks.metrics import Totals

SATURATED = 0.99
"""A neuron that fires at this rate or above says almost nothing; one that never fires is dead."""


@dataclass
class LayerActivity:
    """Counts of one layer over all evaluated steps (padding left out)."""

    fired: Tensor  # (H,) spikes of each neuron
    steps: float = 0.0
    wrong: float = 0.0  # spikes in which SDN and exact neuron differ, on the same currents
    true: float = 0.0  # spikes of the exact neuron
    memoryless_wrong: float = 0.0  # the same count for s = H(I - 1)

    @property
    def rates(self) -> Tensor:
        """Firing rate of every neuron, ``(H,)``."""
        return self.fired / max(self.steps, 1.0)

    @property
    def rate(self) -> float:
        """Mean firing rate."""
        return float(self.rates.mean())


@dataclass
class Activity:
    """Everything :func:`measure` saw."""

    figures: dict[str, float]
    swapped_figures: dict[str, float]
    layers: list[LayerActivity]
    neuron: str
    swapped_neuron: str
    samples: int
    mean_length: float
    predictions: Tensor | None = None  # (n,) classes, with targets
    targets: Tensor | None = None
    changed_predictions: int = 0
    raster: list[Tensor] = field(default_factory=list)  # of the first sample: (H, L) bool a layer
    sample: Tensor | None = None


class _Watch:
    """Hooks on the neurons of a module that count spikes and compare with the other kind on the same currents."""

    def __init__(self, module: SequenceModule, others: Mapping[nn.Module, nn.Module]) -> None:
        self.layers: list[LayerActivity] = []
        self.raster: list[Tensor] = []
        self.mask: Tensor | None = None
        self.keep_raster = True
        self._others = others
        self._handles = []
        for i, neuron in enumerate(neurons(module.backbone)):
            self.layers.append(LayerActivity(torch.zeros(module.backbone.d_model, dtype=torch.float64)))
            self._handles.append(neuron.register_forward_hook(self._hook(i)))

    def _hook(self, i: int) -> Any:
        def count(neuron: nn.Module, inputs: tuple[Tensor, ...], s: Tensor) -> None:
            current, layer = inputs[0], self.layers[i]
            mask = torch.ones_like(s[:, :1]) if self.mask is None else self.mask.to(s)
            layer.fired += (s * mask).sum((0, 2), dtype=torch.float64).cpu()
            layer.steps += float(mask.sum())
            other = self._others[neuron](current)
            exact = other if isinstance(neuron, SDNNeuron) else s
            layer.true += float((exact * mask).sum(dtype=torch.float64))
            layer.wrong += float(((s != other) * mask).sum(dtype=torch.float64))
            layer.memoryless_wrong += float((((current >= 1) != (exact > 0)) * mask).sum(dtype=torch.float64))
            if self.keep_raster:
                self.raster.append(s[0].bool().cpu())

        return count

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def swapped_neuron(neuron: nn.Module) -> nn.Module:
    """The other kind: the exact neuron for an SDN, the shipped SDN of its tau for an exact one.

    Raises:
        UserError: there is no SDN for this neuron (no shipped weights for its tau, another reset, a learnt tau).
    """
    if isinstance(neuron, SDNNeuron):
        return make_neuron("sltt", neuron.tau).to(next(neuron.buffers()).device)
    tau, u_r, reset = neuron.constants()
    if reset != "hard" or torch.as_tensor(u_r).ne(0).any() or isinstance(tau, Tensor):
        raise UserError(
            "an SDN stands for hard reset to 0 and one fixed tau; this network's neurons are of another kind"
        )
    return make_neuron("sdn", tau)


def swap_neurons(module: SequenceModule) -> SequenceModule:
    """A copy of the network with :func:`swapped_neuron` in every layer."""
    other = copy.deepcopy(module)
    for layer in other.backbone.layers:
        layer.neuron = swapped_neuron(layer.neuron)
    return other.eval()


@torch.no_grad()
def measure(
    module: SequenceModule, batches: Iterable[tuple[Tensor, Tensor, dict[str, Any]]], limit: int | None = None
) -> Activity:
    """Run the network over ``batches`` twice, with its own neurons and with the other kind, and count.

    Args:
        limit: stop after this many samples.

    Raises:
        UserError: there are no batches.
    """
    module = module.eval()
    other = swap_neurons(module)
    pairs = dict(zip(neurons(module.backbone), neurons(other.backbone), strict=True))
    watch = _Watch(module, pairs)
    figures, swapped = Totals(), Totals()
    predictions, targets, changed, samples, steps = [], [], 0, 0, 0.0
    sample = None
    try:
        for x, y, z in batches:
            length, watch.mask = _inside(module, x, z)
            output = module(x, z)
            watch.keep_raster = False
            sample = x[0] if sample is None else sample
            theirs = other(x, z)
            figures.add(module.task(output, y, z))
            swapped.add(module.task(theirs, y, z))
            steps += float(x.shape[0] * length if watch.mask is None else watch.mask.sum())
            samples += len(x)
            if output.dim() == 2 and y.dim() == 1:
                predictions.append(output.argmax(-1))
                targets.append(y)
                changed += int((output.argmax(-1) != theirs.argmax(-1)).sum())
            if limit is not None and samples >= limit:
                break
    finally:
        watch.remove()
    if not samples:
        raise UserError("there is nothing to evaluate: the data set has no samples in this split")
    names = [type(neuron).__name__ for neuron in next(iter(pairs.items()))]
    return Activity(
        figures=module.task.report(figures.means()),
        swapped_figures=module.task.report(swapped.means()),
        layers=watch.layers,
        neuron=names[0],
        swapped_neuron=names[1],
        samples=samples,
        mean_length=steps / samples,
        predictions=torch.cat(predictions) if predictions else None,
        targets=torch.cat(targets) if targets else None,
        changed_predictions=changed,
        raster=watch.raster,
        sample=sample,
    )


def _inside(module: SequenceModule, x: Tensor, z: Mapping[str, Any]) -> tuple[int, Tensor | None]:
    """Steps L of the backbone, and ``(B, 1, L)``: 1 at those of the sequence, 0 in its padding; None if unpadded."""
    shorten = getattr(module.encoder, "shorten", lambda lengths: lengths)
    length, lengths = int(shorten(x.shape[1])), z.get("lengths")
    if lengths is None:
        return length, None
    return length, real_steps(shorten(lengths), length).unsqueeze(1).float()
