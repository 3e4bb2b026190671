"""The norms of :mod:`models.spike.fused`: forwards and backwards, each with the sum of a residual on the way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdn.kernels.threads import spread

from . import norm_kernels
from .fused_arrays import flat, new, shares
from .norms import BatchNorm, LayerNorm, NoNorm, Norm


def norm_pass(
    norm: Norm | None, lengths: np.ndarray, weight: Tensor | None, bias: Tensor | None
) -> _NoNorm | _LayerNorm | _BatchNorm:
    """The passes of ``norm``, None for none; ``lengths (B,)``: steps that count."""
    if norm is None or isinstance(norm, NoNorm) or weight is None or bias is None:
        return _NoNorm()
    if isinstance(norm, LayerNorm):
        return _LayerNorm(norm, weight, bias)
    return _BatchNorm(norm, lengths, weight, bias)


class _NoNorm:
    kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        return grad if base is None else grad.add_(base), (None, None)


class _LayerNorm:
    def __init__(self, norm: LayerNorm, weight: Tensor, bias: Tensor) -> None:
        self.eps, self.weight, self.bias = norm.eps, weight.detach(), bias.detach()
        self.kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        (B, L, H), y = x.shape, new(*x.shape, dtype=x.dtype)
        stats = new(B * L, 2, dtype=x.dtype)
        arrays = flat(x), flat(self.weight), flat(self.bias)
        spread(norm_kernels.layer_forward, B * L, 64, *arrays, arrays[0].dtype.type(self.eps), flat(y), flat(stats), H)
        self.kept = (stats,)
        return y

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        """The gradient at x plus ``base``; it overwrites ``grad`` if there is a ``base``."""
        (B, L, H), slots = x.shape, shares()
        out = new(B, L, H, dtype=x.dtype) if base is None else grad
        by_weight, by_bias = x.new_zeros(slots, H), x.new_zeros(slots, H)
        arrays = [flat(t) for t in (grad, x, self.weight, *self.kept, out, grad if base is None else base)]
        sums = flat(by_weight), flat(by_bias)
        spread(norm_kernels.layer_backward, slots, 1, *arrays, base is not None, *sums, slots, B * L, H)
        return out, (by_weight.sum(0), by_bias.sum(0))


class _BatchNorm:
    def __init__(self, norm: BatchNorm, lengths: np.ndarray, weight: Tensor, bias: Tensor) -> None:
        self.norm, self.lengths, self.weight, self.bias = norm, lengths, weight.detach(), bias.detach()
        self.training = norm.training
        self.kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        (B, L, H), y = x.shape, new(*x.shape, dtype=x.dtype)
        if self.training:
            mean, var = self._moments(x)
        else:
            mean, var = self.norm.running_mean, self.norm.running_var
        inverse = torch.rsqrt(var + self.norm.eps)
        arrays = flat(x), flat(mean), flat(self.weight * inverse), flat(self.bias), flat(y)
        spread(norm_kernels.affine, B * L, 64, *arrays, H)
        self.kept = (mean.clone(), inverse)
        return y

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (_, L, H), slots, norm = x.shape, shares(), self.norm
        moments, counts = np.zeros((slots, 2, H)), np.zeros(slots, np.int64)
        arrays = flat(x), self.lengths, moments.reshape(-1), counts
        spread(norm_kernels.batch_moments, slots, 1, *arrays, slots, L, H)
        total = max(int(counts.sum()), 1)
        share = counts[:, None] / total
        centre = (share * moments[:, 0]).sum(0)
        around = (moments[:, 1] + counts[:, None] * (moments[:, 0] - centre) ** 2).sum(0) / total
        mean, var = torch.from_numpy(centre).to(x.dtype), torch.from_numpy(around).to(x.dtype)
        with torch.no_grad():
            norm.num_batches_tracked += 1
            step = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, step)
            norm.running_var.lerp_(var * (total / max(total - 1, 1)), step)
        return mean, var

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        """As :meth:`_LayerNorm.backward`."""
        (B, L, H), slots, (mean, inverse) = x.shape, shares(), self.kept
        out = new(B, L, H, dtype=x.dtype) if base is None else grad
        sums = x.new_zeros(slots, 2, H)
        arrays = flat(grad), flat(x), flat(mean), flat(sums)
        spread(norm_kernels.batch_sums, slots, 1, *arrays, slots, B * L, H)
        by_bias, by_scale = sums.sum(0)
        scale = self.weight * inverse
        shift, slope = torch.zeros_like(scale), torch.zeros_like(scale)
        if self.training:
            total = max(int(self.lengths.sum()), 1)
            shift, slope = scale * by_bias / total, scale * by_scale * inverse.square() / total
        numbers = [flat(t) for t in (mean, scale, shift, slope)]
        ends = flat(out), flat(grad if base is None else base), base is not None
        spread(norm_kernels.batch_backward, B * L, 64, *arrays[:2], self.lengths, *numbers, *ends, L, H)
        return out, (by_scale * inverse, by_bias)
