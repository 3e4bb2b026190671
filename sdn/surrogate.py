"""The spike function H and the surrogate gradient that stands in for its derivative."""

from __future__ import annotations

import torch
from torch import Tensor


def triangle(v: Tensor) -> Tensor:
    """psi(v) = max(0, 1 - |v|), the surrogate derivative of H at distance ``v`` from the threshold.

    Any shape; values in [0, 1]. Also known as "piecewise quadratic" after its integral.
    Source: arXiv 2408.14909 names rectangular and triangular windows; the half-width 1 is the released code's.
    """
    return (1 - v.abs()).clamp_min(0)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return grad * triangle(v)


def spike(v: Tensor) -> Tensor:
    """s = H(v) with H(0) = 1 and ds/dv := psi(v) (:func:`triangle`). Any shape; output in {0, 1}, dtype of ``v``."""
    return _Spike.apply(v)
