"""What a task is: the loss to minimise and the figures to report, as sums over samples."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

Sums = dict[str, tuple[Tensor, Tensor]]
"""Name -> (sum, count): two 0-dim tensors whose ratio is the mean over what was counted."""


class Shapes(Protocol):
    """What of a data family the model must know; a :class:`src.dataloaders.base.SequenceData` has it."""

    d_input: int
    d_output: int
    n_tokens: int | None
    l_max: int | None


class Task(nn.Module):
    """``task(output, y, z) -> {"loss": (sum, count), ...}``; training minimises sum / count of ``loss``.

    Sums instead of means make every reported figure exact over batches of any size and over processes. A task that
    needs its own encoder or decoder (tied embeddings) sets ``encoder`` or ``decoder`` and the config names none.
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

    def report(self, means: dict[str, float]) -> dict[str, float]:
        """The figures to log, from the means of an epoch; add derived ones (a perplexity) here."""
        return means
