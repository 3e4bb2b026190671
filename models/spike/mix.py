"""The mix: spikes to channels by a 1x1 convolution and a gated linear unit, with dropout of whole channels around it.

For the spikes s (B, H, L) in {0, 1}, or graded values, time last, and channel masks m (B, H), m' (B, H) with values 0
or 1/(1-p)::

    [a; b] = W (m ⊙ s) + bias,   z = m' ⊙ a σ(b)                       W (2H, H)

A mask is the same at all times, so m scales the columns of W and m' the rows of the result: neither costs a pass over
time or a saved tensor, and the layout stays (B, H, L) through matrix product and gate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdn.ops import is_transformed

from .once import once, witness

# Batch rows go a few at a time on a CPU, so that temporaries are small and in the cache. Elements of the spikes.
_CPU_PIECE = 1 << 18


class Mix(nn.Conv1d):
    """``s (B, H, L) -> z (B, H, L)``; a ``Conv1d`` of kernel 1 in its parameters and their initialisation."""

    bias: Tensor

    def __init__(self, d_model: int, dropout: float = 0.0) -> None:
        super().__init__(d_model, 2 * d_model, 1)
        self.dropout = dropout

    def forward(self, s: Tensor, binary: bool = False) -> Tensor:
        """``binary``: all of s is 0 or 1, so that a byte each is enough for the backward pass."""
        weight, bias, device = self.weight.squeeze(-1), self.bias, s.device.type
        if torch.is_autocast_enabled(device):
            low = torch.get_autocast_dtype(device)
            s, weight, bias = s.to(low), weight.to(low), bias.to(low)
        s = s.to(weight.dtype)
        before, after = self._channel_mask(s), self._channel_mask(s)
        if torch.compiler.is_compiling() or is_transformed(s, weight, bias):
            s = s if before is None else s * before.unsqueeze(-1)
            z = F.glu(torch.matmul(weight, s) + bias.unsqueeze(-1), 1)
            return z if after is None else z * after.unsqueeze(-1)
        return _Mix.apply(s, weight, bias, before, after, binary, witness(s) if binary else None)

    def step(self, s: Tensor) -> Tensor:
        """One sample, without dropout: ``(B, H) -> (B, H)``."""
        return F.glu(F.linear(s.to(self.weight.dtype), self.weight.squeeze(-1), self.bias), 1)

    def _channel_mask(self, s: Tensor) -> Tensor | None:
        if not self.training or not self.dropout:
            return None
        keep = 1 - self.dropout
        return torch.bernoulli(s.new_full(s.shape[:2], keep)) / keep


class _Mix(torch.autograd.Function):
    """The module's equation. For the backward pass it keeps [a; b] and s, in a byte each if ``binary``."""

    @staticmethod
    def forward(
        ctx: Any,
        s: Tensor,
        weight: Tensor,
        bias: Tensor,
        before: Tensor | None,
        after: Tensor | None,
        binary: bool,
        of_s: Tensor | None,
    ) -> Tensor:
        B, H, L = s.shape
        ab = s.new_empty(B, 2 * H, L)
        out = torch.empty_like(s)
        with torch.autocast(s.device.type, enabled=False):
            for rows in _pieces(s):
                W = _masked(weight, before, rows)
                torch.baddbmm(bias[:, None], W.expand(s[rows].shape[0], -1, -1), s[rows], out=ab[rows])
                z = torch.ops.aten.glu.out(ab[rows], 1, out=out[rows])
                if after is not None:
                    z.mul_(after[rows].unsqueeze(-1))
        ctx.save_for_backward(s.to(torch.uint8) if binary else s, weight, before, after, ab, bias, of_s)
        return out

    @staticmethod
    @once
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        s, weight, before, after, ab, *_ = ctx.saved_tensors
        grad_s = grad.new_empty(grad.shape)
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
        with torch.autocast(s.device.type, enabled=False):
            for rows in _pieces(s):
                g = grad[rows] if after is None else grad[rows] * after[rows].unsqueeze(-1)
                g = torch.ops.aten.glu_backward(g, ab[rows], 1)
                W = _masked(weight, before, rows).expand(g.shape[0], -1, -1)
                torch.bmm(W.transpose(1, 2), g, out=grad_s[rows])
                by_row = torch.bmm(g, s[rows].to(g.dtype).transpose(1, 2))
                grad_weight += (by_row if before is None else by_row * before[rows].unsqueeze(1)).sum(0)
                grad_bias += g.sum((0, 2))
        return grad_s, grad_weight, grad_bias, None, None, None, None


def _masked(weight: Tensor, mask: Tensor | None, rows: slice) -> Tensor:
    return weight.unsqueeze(0) if mask is None else weight * mask[rows].unsqueeze(1)


def _pieces(s: Tensor) -> list[slice]:
    B, H, L = s.shape
    size = max(1, _CPU_PIECE // (H * L) if s.device.type == "cpu" else B)
    return [slice(start, start + size) for start in range(0, B, size)]
