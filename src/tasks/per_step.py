"""A class at every step: cross entropy and accuracy over all steps that have a label."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sdn.errors import UserError

from .base import Shapes, Sums, Task, counted_steps


class PerStep(Task):
    """Logits (B, L, C), classes y (B, L); wants ``decoder=per_step``.

    Loss and accuracy are means over steps, not over sequences: a sequence counts by its length. Steps beyond
    ``z["lengths"]``, steps whose class is below 0 and samples with ``z["weight"]`` 0 do not count.
    """

    def __init__(self, data: Shapes, d_model: int) -> None:
        super().__init__()

    def predictions(self, output: Tensor) -> Tensor:
        """The likeliest class of every step, (B, L)."""
        return output.argmax(-1)

    def counted(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Tensor:
        """The steps that count, (B, L)."""
        return counted_steps(y, z) & (y >= 0)

    def forward(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Sums:
        """Sums of ``loss`` and ``accuracy`` over the steps that count.

        Raises:
            UserError: the decoder does not answer every step, or the data have one target a sequence.
        """
        if y.dim() != 2 or output.shape[:-1] != y.shape:
            raise UserError(
                f"task=per_step compares logits (B, L, C) with classes (B, L), not {tuple(output.shape)} with "
                f"{tuple(y.shape)}; it wants decoder=per_step and data with a label a step"
            )
        counts = self.counted(output, y, z)
        logits, y = output.float()[counts], y[counts]
        loss = F.cross_entropy(logits, y, reduction="sum")
        right = (logits.detach().argmax(-1) == y).to(logits.dtype).sum()
        count = counts.sum().to(logits.dtype)
        return {"loss": (loss, count), "accuracy": (right, count)}
