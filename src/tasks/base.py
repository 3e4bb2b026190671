"""What a task is: the loss to minimise and the figures to report, as sums over samples."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.spike.lengths import real_steps

Sums = dict[str, tuple[Tensor, Tensor]]
"""Name -> (sum, count): two 0-dim tensors whose ratio is the mean over what was counted."""


class Shapes(Protocol):
    """What of a data family the model must know; a :class:`src.dataloaders.base.SequenceData` has it."""

    d_input: int
    d_output: int
    n_tokens: int | None
    l_max: int | None


def counted_samples(y: Tensor, z: dict[str, Any]) -> Tensor:
    """(B,) bool: False for the samples that a loader repeats to fill its batches, whose ``z["weight"]`` is 0."""
    weight = z.get("weight")
    if weight is None:
        return torch.ones(len(y), dtype=torch.bool, device=y.device)
    return weight.to(y.device) > 0


def counted_steps(y: Tensor, z: dict[str, Any]) -> Tensor:
    """(B, L) bool for targets y (B, L, ...): the steps within ``z["lengths"]`` of the samples that count."""
    counts = counted_samples(y, z).unsqueeze(1).expand(y.shape[:2])
    lengths = z.get("lengths")
    if lengths is None:
        return counts
    return counts & real_steps(lengths, y.shape[1], y.device)


class Task(nn.Module):
    """``task(output, y, z) -> {"loss": (sum, count), ...}``; training minimises sum / count of ``loss``.

    Sums instead of means make every reported figure exact over batches of any size and over processes. A task that
    needs its own encoder or decoder (tied embeddings) sets ``encoder`` or ``decoder``, to ``nn.Identity()`` for none at
    all, and the config names none.
    Subclasses are built as ``cls(data, d_model, **task config)``.
    """

    encoder: nn.Module | None
    decoder: nn.Module | None
    causal = False
    """True if the backbone must not look ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = self.decoder = None  # not as class attributes, which would hide submodules of these names

    def forward(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Sums:
        raise NotImplementedError

    def predictions(self, output: Tensor) -> Tensor | None:
        """What a user reads off ``output``: classes (...,) long or numbers (..., K); None if there is no such thing."""
        return None

    def counted(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Tensor:
        """Which targets count, True or False: one a sequence (B,), or one a step (B, L). Padding, repeated samples and
        steps without a label do not. ``predictions(output)[counted]`` and ``y[counted]`` belong together."""
        return counted_samples(y, z)

    def report(self, means: dict[str, float]) -> dict[str, float]:
        """The figures to log, from the means of an epoch; add derived ones (a perplexity) here."""
        return means
