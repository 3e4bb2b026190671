"""Which steps of a padded batch are real."""

from __future__ import annotations

import torch
from torch import Tensor


def real_steps(lengths: Tensor, L: int, device: torch.device | None = None) -> Tensor:
    """``(B, L)`` bool: True at the first ``lengths[b]`` of the L steps of row b, False in its padding.

    ``device`` is that of the result, by default that of ``lengths (B,)``.
    """
    lengths = lengths if device is None else lengths.to(device)
    return torch.arange(L, device=lengths.device) < lengths.unsqueeze(1)
