"""Normalisation over channels in the layout (B, H, L), time last, and in the step's layout (B, H)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdn.errors import UserError

NORMS: tuple[str, ...] = ("batch", "layer", "none")


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of ``(B, H, L)`` or ``(B, H)``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.dim() == 2:
            return super().forward(x)
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of every channel over ``(B, L)``; with ``mask (B, 1, L)`` over the positions where it is 1."""

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
