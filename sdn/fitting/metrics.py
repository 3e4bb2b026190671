"""How well a predicted potential spikes: errors gathered batch by batch, and the baselines to beat.

The figure that counts is wrong spikes over true spikes: the accuracy alone looks high wherever spikes are rare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class SpikeScore:
    """What :class:`SpikeMetrics` found; ``mae_std`` is the standard deviation of |error| over all steps."""

    mae_mean: float
    mae_std: float
    mae_max: float
    spike_accuracy: float
    wrong_spikes: int
    true_spikes: int
    steps: int

    @property
    def ratio(self) -> float:
        """Wrong spikes over true spikes; 0 / 0 counts as 0, x / 0 as infinity."""
        if self.true_spikes:
            return self.wrong_spikes / self.true_spikes
        return math.inf if self.wrong_spikes else 0.0

    @property
    def rate(self) -> float:
        """True spikes per step."""
        return self.true_spikes / self.steps if self.steps else 0.0

    def as_dict(self) -> dict[str, float]:
        """All figures by name, with ``ratio`` and ``rate``."""
        return asdict(self) | {"ratio": self.ratio, "rate": self.rate}


class SpikeMetrics:
    """Sums over batches of any shape, in float64 and exact counts; :meth:`score` may be read at any time."""

    def __init__(self) -> None:
        self._sum = self._squares = self._max = 0.0
        self._wrong = self._true = self._steps = 0

    @torch.no_grad()
    def update(self, predicted: Tensor, mem: Tensor, current: Tensor, spike: Tensor | None = None) -> None:
        """Add a batch: predicted and true mem and the current, all of one shape; the true spikes follow if not given.

        A spike is H(mem + I - 1). A predicted NaN counts as no spike and makes the errors NaN.
        """
        error = (predicted.double() - mem.double()).abs()
        true = mem + current >= 1 if spike is None else spike > 0
        self._sum += error.sum().item()
        self._squares += error.square().sum().item()
        self._max = max(self._max, error.max().item()) if error.numel() else self._max
        self._wrong += int(((predicted + current >= 1) != true).sum())
        self._true += int(true.sum())
        self._steps += error.numel()

    def score(self) -> SpikeScore:
        """The figures so far; NaN errors before the first step."""
        n = self._steps
        mean = self._sum / n if n else math.nan
        std = math.sqrt(max(self._squares / n - mean**2, 0.0)) if n and math.isfinite(mean) else math.nan
        accuracy = 1 - self._wrong / n if n else math.nan
        most = self._max if math.isfinite(mean) else mean
        return SpikeScore(mean, std, most, accuracy, self._wrong, self._true, n)


@torch.no_grad()
def evaluate(
    predict: Callable[[Tensor], Tensor], current: Tensor, mem: Tensor, spike: Tensor | None = None, batch: int = 256
) -> SpikeScore:
    """Score ``predict`` (current -> mem) on sequences ``(N, L)``, ``batch`` of them at a time."""
    metrics = SpikeMetrics()
    parts = max(1, -(-len(current) // batch))
    spikes = [None] * parts if spike is None else spike.split(batch)
    for x, m, s in zip(current.split(batch), mem.split(batch), spikes, strict=True):
        metrics.update(predict(x), m, x, s)
    return metrics.score()


def no_memory(current: Tensor) -> Tensor:
    """Baseline mem = 0, so that s = H(I - 1)."""
    return torch.zeros_like(current)


def truncated(current: Tensor, tau: float, last: int) -> Tensor:
    """Baseline: mem ``(..., L)`` by the exact recurrence over only the ``last`` inputs before t, from u = 0.

    This is the best that is known without the neuron's phase; no network with a window of ``last`` taps knows more.
    """
    length = current.shape[-1]
    padded, u = pad(current, (last, 0)), torch.zeros_like(current)
    for j in range(last):
        before = tau * u + padded[..., j : j + length]
        u = torch.where(before >= 1, 0.0, before)
    return tau * u


def baselines(tau: float, windows: tuple[int, ...] = (1, 2, 4, 8)) -> dict[str, Callable[[Tensor], Tensor]]:
    """Baseline predictors by name: no memory, and the exact recurrence over the last K inputs."""

    def over(last: int) -> Callable[[Tensor], Tensor]:
        return lambda current: truncated(current, tau, last)

    named = {"no memory": no_memory}
    return named | {f"exact over the last {k} input{'s' * (k > 1)}": over(k) for k in windows}
