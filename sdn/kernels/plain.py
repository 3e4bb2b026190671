"""Kernels in plain PyTorch, for any device: 128 Python steps whatever the length, instead of one a time step.

Signatures as in :mod:`sdn.kernels`. Every row is cut into blocks of SEAM steps that advance together, time first so
that each step is one contiguous vector of R * L / SEAM neurons. Backwards the blocks start from the seams the forward
pass left. Forwards the seams are not known yet: all blocks run from a guess, then those whose guess was not the
potential their predecessor reached run again, until every seam agrees. Each round settles at least the first wrong
block of every row, so it ends, exactly; most often after two or three rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from ..surrogate import triangle
from . import SEAM


def _vectors(vector: Tensor, rows: Tensor) -> Tensor:
    return vector[rows % len(vector)]


def _time_first(I: Tensor, dtype: torch.dtype) -> Tensor:
    """``(R, L) -> (steps, R, blocks)``, padded with zeros to whole blocks; one block of L steps if L is shorter."""
    R, L = I.shape
    steps = min(SEAM, L)
    blocks = -(-L // steps)
    return pad(I.to(dtype), (0, blocks * steps - L)).view(R, blocks, steps).permute(2, 0, 1).contiguous()


def _rows_first(x: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    steps, R, blocks = x.shape
    return x.permute(1, 2, 0).reshape(R, blocks * steps)[:, :L].to(dtype, memory_format=torch.contiguous_format)


def _step(before: Tensor, u_r: Tensor, soft: bool) -> tuple[Tensor, Tensor]:
    fired = before >= 1
    return fired, before - fired.to(before.dtype) if soft else torch.where(fired, u_r, before)


def _same(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) | (a.isnan() & b.isnan())
