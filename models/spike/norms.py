"""Normalisation over channels in the layout (B, H, L), time last, and in the step's layout (B, H)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sdn.errors import UserError

NORMS: tuple[str, ...] = ("batch", "layer", "none")


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of ``(B, H, L)``, without turning time away from the last axis, or of ``(B, H)``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.dim() == 2:
            return super().forward(x)
        if torch.compiler.is_compiling():
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        return _ChannelNorm.apply(x, self.weight, self.bias, self.eps)


class _ChannelNorm(torch.autograd.Function):
    """``n = (x - mean) / sqrt(var + eps)``, ``weight n + bias``: mean and biased variance over axis 1."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        n = x.to(exact) - x.mean(1, keepdim=True, dtype=exact)
        inv_std = torch.rsqrt(n.square().mean(1, keepdim=True) + eps)
        n.mul_(inv_std)
        ctx.save_for_backward(n, inv_std, weight)
        ctx.dtype = x.dtype
        return torch.addcmul(bias.unsqueeze(-1), weight.unsqueeze(-1), n)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        n, inv_std, weight = ctx.saved_tensors
        by_n = grad * n
        grad_weight, grad_bias = by_n.sum((0, 2)), grad.sum((0, 2))
        w = weight.unsqueeze(-1)
        grad_x = grad * w
        slope = by_n.mul_(w).mean(1, keepdim=True)
        grad_x = grad_x.sub_(grad_x.mean(1, keepdim=True)).addcmul_(n, slope, value=-1).mul_(inv_std)
        return grad_x.to(ctx.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of every channel over ``(B, L)``; with ``mask (B, 1, L)`` over the positions where it is 1."""

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """``(scale, shift)``, each ``(H,)``: with its running statistics the norm is x scale + shift."""
        scale = self.weight / torch.sqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training:
            return super().forward(x)
        count = mask.sum().clamp_min(1)
        mean = (x * mask).sum((0, 2)) / count
        centred = x - mean.unsqueeze(-1)
        var = (centred.square() * mask).sum((0, 2)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var * count / (count - 1).clamp_min(1)).to(self.running_var), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return centred * scale.unsqueeze(-1) + self.bias.unsqueeze(-1)


class NoNorm(nn.Identity):
    """The identity with a norm's signature."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x


def make_norm(name: str | None, d_model: int) -> nn.Module:
    """The norm a config names: "batch", "layer", "none" (or None). Raises :class:`UserError` for any other."""
    name = "none" if name is None else name
    if name not in NORMS:
        raise UserError(f"unknown norm {name!r}; choose one of {', '.join(NORMS)}")
    if name == "none":
        return NoNorm()
    return BatchNorm(d_model) if name == "batch" else LayerNorm(d_model)
