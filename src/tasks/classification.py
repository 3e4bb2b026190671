"""Classification of whole sequences: cross entropy and accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Shapes, Sums, Task


class Classification(Task):
    """Logits (B, C), classes y (B,). Samples with ``z["weight"]`` 0 do not count."""

    def __init__(self, data: Shapes, d_model: int) -> None:
        super().__init__()

    def predictions(self, output: Tensor) -> Tensor:
        """The likeliest classes (B,)."""
        return output.argmax(-1)

    def forward(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Sums:
        logits = output.float()
        weight = z.get("weight")
        weight = torch.ones_like(y, dtype=logits.dtype) if weight is None else weight.to(logits.dtype)
        loss = F.cross_entropy(logits, y, reduction="none")
        right = (logits.detach().argmax(-1) == y).to(logits.dtype)
        count = weight.sum()
        return {"loss": ((loss * weight).sum(), count), "accuracy": ((right * weight).sum(), count)}
