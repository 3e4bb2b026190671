"""What a trained network does on data: its figures, its spikes, and what changes with the other kind of neuron."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.spike.lengths import real_steps
from sdn.errors import UserError
from sdn.neurons import LIF, SDNNeuron
from src.callbacks.firing_rate import neurons
from src.evaluation.twin import device_of, other_network, word_of
from src.module import SequenceModule
from src.tasks.metrics import Totals

SATURATED = 0.99
"""A neuron that fires at this rate or above says almost nothing; one that never fires is dead."""
Batch = tuple[Tensor, Tensor, dict[str, Any]]


@dataclass
class LayerActivity:
    """Counts of one layer over all evaluated steps (padding left out)."""

    fired: Tensor  # (H,) steps at which each neuron's output was not 0
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
class Swapped:
    """The same weights with the other kind of neuron."""

    neuron: str
    figures: dict[str, float]
    changed_predictions: int | None  # of classes; None where the task predicts none


@dataclass
class Activity:
    """Everything :func:`measure` saw."""

    figures: dict[str, float]
    layers: list[LayerActivity]
    neuron: str
    binary: bool  # its outputs are 0 or 1; else the rates count outputs that are not 0
    samples: int
    mean_length: float  # steps of the backbone a sample: of both texts in retrieval
    swapped: Swapped | None  # None where there is no other kind
    why_not_swapped: str = ""
    predictions: Tensor | None = None  # (n,) classes of the targets that count, with targets
    targets: Tensor | None = None
    raster: list[Tensor] = field(default_factory=list)  # of the first sample: (H, L) bool a layer
    sample: Tensor | None = None
    reading: Reading | None = None  # of that sample, where it has one class


@dataclass
class Reading:
    """The class of a sample, the one it was read as, and the probability it was given."""

    target: int
    guess: int
    probability: float

    def words(self, names: Sequence[str] | None) -> str:
        """``a 3, read as 3 (probability 0.98)``; ``names`` of the classes, if they have any."""
        target, guess = (
            names[c] if names is not None and c < len(names) else str(c) for c in (self.target, self.guess)
        )
        return f"{target}, read as {guess} (probability {self.probability:.2f})"


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
            inside = torch.ones_like(s[:, :1], dtype=torch.bool) if self.mask is None else self.mask
            active = (s != 0) & inside
            layer.fired += active.sum((0, 2)).double().cpu()
            layer.steps += float(inside.sum())
            if neuron in self._others:
                other = self._others[neuron](current)
                exact = other if isinstance(neuron, SDNNeuron) else s
                layer.true += float(((exact != 0) & inside).sum())
                layer.wrong += float(((s != other) & inside).sum())
                layer.memoryless_wrong += float((((current >= 1) != (exact != 0)) & inside).sum())
            if self.keep_raster:
                self.raster.append(s[0].bool().cpu())

        return count

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class _Classes:
    """Predictions and targets of a task that predicts classes; of another nothing is kept."""

    def __init__(self) -> None:
        self.predictions: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.changed = 0

    def add(self, module: SequenceModule, output: Tensor, theirs: Tensor | None, y: Tensor, z: dict[str, Any]) -> None:
        guess = module.task.predictions(output)
        if guess is None or guess.is_floating_point():
            return
        counted = module.task.counted(output, y, z)
        self.predictions.append(guess[counted].cpu())
        self.targets.append(y[counted].cpu())
        if theirs is not None:
            self.changed += int((guess != module.task.predictions(theirs))[counted].sum())

    def all(self) -> tuple[Tensor | None, Tensor | None]:
        return (torch.cat(self.predictions), torch.cat(self.targets)) if self.predictions else (None, None)


@torch.no_grad()
def measure(module: SequenceModule, batches: Iterable[Batch], limit: int | None = None) -> Activity:
    """Run the network over ``batches``, with its own neurons and, where there is one, with the other kind, and count.

    Args:
        limit: stop after the batch with which this many samples are done.

    Raises:
        UserError: there are no batches, or a figure is no number.
    """
    module = module.eval()
    own = neurons(module.backbone)
    other, why_not = other_network(module, own)
    pairs = dict(zip(own, neurons(other.backbone), strict=True)) if other is not None else {}
    watch, classes = _Watch(module, pairs), _Classes()
    figures, swapped = Totals(), Totals()
    samples, steps, sample, reading = 0, 0.0, None, None
    try:
        for batch in batches:
            x, y, z = _to(batch, device_of(module))
            length, watch.mask = _inside(module, x, z)
            output = module(x, z)
            watch.keep_raster = False
            if sample is None:
                sample, reading = x[0].cpu(), _reading(module, output, y)
            figures.add(module.task(output, y, z))
            theirs = other(x, z) if other is not None else None
            if theirs is not None:
                swapped.add(module.task(theirs, y, z))
            classes.add(module, output, theirs, y, z)
            steps += float(x.shape[0] * length if watch.mask is None else watch.mask.sum())
            samples += len(y)  # and not len(x): retrieval has two texts a target
            if limit is not None and samples >= limit:
                break
    finally:
        watch.remove()
    if not samples:
        raise UserError("there is nothing to evaluate: the data set has no samples in this split")
    predictions, targets = classes.all()
    return Activity(
        figures=_finite(module.task.report(figures.means())),
        layers=watch.layers,
        neuron=word_of(own[0]),
        binary=all(is_binary(neuron) for neuron in own),
        samples=samples,
        mean_length=steps / samples,
        swapped=Swapped(
            neuron=word_of(next(iter(pairs.values()))),
            figures=_finite(module.task.report(swapped.means())),
            changed_predictions=None if predictions is None else classes.changed,
        )
        if pairs
        else None,
        why_not_swapped=why_not,
        predictions=predictions,
        targets=targets,
        raster=watch.raster,
        sample=sample,
        reading=reading,
    )


def _reading(module: SequenceModule, output: Tensor, y: Tensor) -> Reading | None:
    guess = module.task.predictions(output)
    if guess is None or guess.is_floating_point() or guess.dim() != 1 or output.dim() != 2:
        return None
    p = output[0].float().softmax(-1)
    return Reading(int(y[0]), int(guess[0]), float(p[guess[0]]))


def is_binary(neuron: nn.Module) -> bool:
    """Whether its outputs are 0 or 1, so that a layer adds up weights instead of multiplying them."""
    return bool(getattr(neuron, "binary", isinstance(neuron, (LIF, SDNNeuron))))


def _to(batch: Batch, device: torch.device) -> Batch:
    x, y, z = batch
    z = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in z.items()}
    return x.to(device), y.to(device), z


def _finite(figures: dict[str, float]) -> dict[str, float]:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise UserError(
                f"the figure {name} came out as {value}: the network has diverged, or the data hold NaN or infinity; "
                "look at the data with python -m src.dataloaders preview, or train with a lower optimizer.lr"
            )
    return figures


def _inside(module: SequenceModule, x: Tensor, z: Mapping[str, Any]) -> tuple[int, Tensor | None]:
    """Steps L of the backbone, and ``(B, 1, L)``: True at those of the sequence, False in its padding; None if
    unpadded."""
    shorten = getattr(module.encoder, "shorten", lambda lengths: lengths)
    length, lengths = int(shorten(x.shape[1])), z.get("lengths")
    if lengths is None:
        return length, None
    return length, real_steps(shorten(lengths), length).unsqueeze(1)
