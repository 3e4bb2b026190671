"""Which steps of a padded batch are real, and the gate for what a caller says about it."""

from __future__ import annotations

import torch
from torch import Tensor

from sdn.errors import UserError


def real_steps(lengths: Tensor, L: int, device: torch.device | None = None) -> Tensor:
    """``(B, L)`` bool: True at the first ``lengths[b]`` of the L steps of row b, False in its padding.

    ``device`` is that of the result, by default that of ``lengths (B,)``.
    """
    lengths = lengths if device is None else lengths.to(device)
    return torch.arange(L, device=lengths.device) < lengths.unsqueeze(1)


def check_lengths(lengths: Tensor | None, B: int, L: int) -> None:
    """Refuse lengths that cannot be those of a batch of B sequences of L steps; None says that every step is real.

    Values on an accelerator are compared only where no gradient is asked for: reading them there waits for all the
    work that is queued.

    Raises:
        UserError: another shape than (B,), no whole numbers, or one outside 1 .. L.
    """
    if lengths is None or torch.compiler.is_compiling():
        return
    if not isinstance(lengths, Tensor):
        raise UserError(f"lengths must be a tensor of {B} whole numbers, not {type(lengths).__name__}")
    if lengths.shape != (B,) or lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise UserError(
            f"lengths must be {B} whole numbers, one a sequence, not {tuple(lengths.shape)} of {lengths.dtype}"
        )
    if not B or (lengths.device.type != "cpu" and torch.is_grad_enabled()):
        return
    low, high = (int(bound) for bound in torch.aminmax(lengths))
    if low < 1 or high > L:
        raise UserError(
            f"lengths must lie in 1 .. {L}, the steps of the batch, not in {low} .. {high}; if sequences were cut, "
            "count after the cut, and leave out empty ones"
        )
