"""Normalisation over channels in the layout (B, H, L), time last, and in the step's layout (B, H)."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdn.errors import UserError
from sdn.ops import is_transformed
from sdn.typed import TrackingBatchNorm1d

from .once import once, witness

NORMS: tuple[str, ...] = ("batch", "layer", "none")


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of ``(B, H, L)``, without turning time away from the last axis, or of ``(B, H)``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.dim() == 2:
            return super().forward(x)
        if torch.compiler.is_compiling() or is_transformed(x, self.weight, self.bias):
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        return _ChannelNorm.apply(x, self.weight, self.bias, self.eps, witness(x))


class _ChannelNorm(torch.autograd.Function):
    """``n = (x - mean) / sqrt(var + eps)``, ``weight n + bias``: mean and biased variance over axis 1."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, of_x: Tensor | None) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        n = x.to(exact) - x.mean(1, keepdim=True, dtype=exact)
        inv_std = torch.rsqrt(n.square().mean(1, keepdim=True) + eps)
        n.mul_(inv_std)
        ctx.save_for_backward(n, inv_std, weight, of_x)
        ctx.dtype = x.dtype
        return torch.addcmul(bias.unsqueeze(-1), weight.unsqueeze(-1), n)

    @staticmethod
    @once
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        n, inv_std, weight, _ = ctx.saved_tensors
        by_n = grad * n
        grad_weight, grad_bias = by_n.sum((0, 2)), grad.sum((0, 2))
        w = weight.unsqueeze(-1)
        grad_x = grad * w
        slope = by_n.mul_(w).mean(1, keepdim=True)
        grad_x = grad_x.sub_(grad_x.mean(1, keepdim=True)).addcmul_(n, slope, value=-1).mul_(inv_std)
        return grad_x.to(ctx.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None, None


class BatchNorm(TrackingBatchNorm1d):
    """Batch norm of every channel over ``(B, L)``; with ``mask (B, 1, L)`` over the positions where it is 1."""

    def folded(self) -> tuple[Tensor, Tensor]:
        """``(scale, shift)``, each ``(H,)``: with its running statistics the norm is x scale + shift."""
        return fold(self)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x) if mask is None or not self.training else _masked(self, x, mask)


@torch.no_grad()
def fold(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """``(scale, shift)``, each ``(H,)``, of any batch norm with running statistics: it is x scale + shift.

    Raises:
        UserError: it keeps none.
    """
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise UserError("a batch norm without running statistics has no fixed scale; train with track_running_stats")
    scale = norm.weight / torch.sqrt(var + norm.eps)
    return scale, norm.bias - mean * scale


def normed(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """``norm`` of x (B, H, L), of the positions where ``mask (B, 1, L)`` is 1 if there is one.

    Also where ``SyncBatchNorm.convert_sync_batchnorm`` put torch's module, which knows no mask, in place of ours.
    """
    if mask is None or not isinstance(norm, nn.SyncBatchNorm):
        return norm(x) if mask is None else norm(x, mask)
    return _masked(norm, x, mask) if norm.training else norm(x)


def _masked(norm: _BatchNorm, x: Tensor, mask: Tensor) -> Tensor:
    """Training statistics of the positions where ``mask`` is 1, over all processes for a ``SyncBatchNorm``.

    The running statistics follow ``momentum``, or with None the plain average over the batches. A batch in which
    nothing is left normalises to the shift alone and counts for no statistics.
    """
    total = _over_processes if isinstance(norm, nn.SyncBatchNorm) else lambda sums: sums
    found = total(mask.sum().to(x).view(1))
    count = found.clamp_min(1)
    mean = total((x * mask).sum((0, 2))) / count
    centred = x - mean.unsqueeze(-1)
    var = total((centred.square() * mask).sum((0, 2))) / count
    running_mean, running_var, seen = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if running_mean is not None and running_var is not None and seen is not None:
        with torch.no_grad():
            seen += (found > 0).view(())
            share = 1 / seen.clamp_min(1).to(running_mean) if norm.momentum is None else norm.momentum
            factor = torch.where(found > 0, share, 0).to(running_mean)
            running_mean.lerp_(mean.to(running_mean), factor)
            running_var.lerp_((var * count / (count - 1).clamp_min(1)).to(running_var), factor)
    scale = norm.weight * torch.rsqrt(var + norm.eps)
    return centred * scale.unsqueeze(-1) + norm.bias.unsqueeze(-1)


def _over_processes(sums: Tensor) -> Tensor:
    """The sum over all processes, with its gradient."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return sums
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(sums)


class NoNorm(nn.Identity):
    """The identity with a norm's signature."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x


Norm: TypeAlias = NoNorm | LayerNorm | BatchNorm


def make_norm(name: str | None, d_model: int) -> Norm:
    """The norm a config names: "batch", "layer", "none" (or None). Raises :class:`UserError` for any other."""
    name = "none" if name is None else name
    if name not in NORMS:
        raise UserError(f"unknown norm {name!r}; choose one of {', '.join(NORMS)}")
    if name == "none":
        return NoNorm()
    return BatchNorm(d_model) if name == "batch" else LayerNorm(d_model)
