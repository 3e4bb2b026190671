"""A reduced SDN on windows of its input, its weights as one vector, and the derivative by them: for second-order fits.

The potential at one step depends on the ``R`` inputs before it (:attr:`ReducedSDN.receptive_field`); what a layer hands
on is zero before the sequence begins, which a window alone does not show: so each comes with its step t.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..network import ReducedSDN


class _Layer(NamedTuple):
    """What one layer of :class:`WindowNet` computed at P places of each window."""

    conv: Tensor
    mix: Tensor
    seen: Tensor  # (n, P, k), or (n, P, d, k) of a deeper layer
    a: Tensor  # (n, P, d), after the depthwise convolution
    h: Tensor  # (n, P, d), handed on


class WindowNet:
    """``sdn`` as a function of its weights ``theta (P,)`` and of windows ``x (n, R)`` before the steps ``t (n,)``."""

    def __init__(self, sdn: ReducedSDN) -> None:
        self.n_layers, self.window = sdn.n_layers, sdn.receptive_field
        self.shapes = {name: value.shape for name, value in sdn.named_buffers()}
        self.theta = sdn.flat().double()

    def unpack(self, theta: Tensor) -> dict[str, Tensor]:
        """The tensors of a :class:`ReducedSDN` by name."""
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _layers(self, w: dict[str, Tensor], x: Tensor, t: Tensor) -> list[_Layer]:
        layers: list[_Layer] = []
        k = self.shapes["conv_weight"][1]
        for i in range(self.n_layers):
            suffix = f"_{i + 1}" if i else ""
            conv, mix = w["conv_weight" + suffix], w["mix_weight" + suffix]
            conv_bias, mix_bias = w["conv_bias" + suffix], w["mix_bias" + suffix]
            seen = (layers[-1].h if i else x).unfold(1, k, 1)
            if i:
                a = (seen * conv).sum(-1).add_(conv_bias).relu_()
            else:
                a = torch.addmm(conv_bias, seen.reshape(-1, k), conv.T).relu_().view(*seen.shape[:2], len(conv))
            h = torch.addmm(mix_bias, a.flatten(0, 1), mix.T).relu_().view_as(a)
            if i + 1 < self.n_layers:
                ago = torch.arange(h.shape[1] - 1, -1, -1)
                h = h * (t[:, None] >= ago)[..., None]
            layers.append(_Layer(conv, mix, seen, a, h))
        return layers

    def __call__(self, theta: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """mem ``(n,)``."""
        w = self.unpack(theta)
        return torch.addmv(w["out_bias"], self._layers(w, x, t)[-1].h[:, -1], w["out_weight"])

    def in_blocks(self, theta: Tensor, x: Tensor, t: Tensor, size: int) -> Tensor:
        """The same, ``size`` windows at a time."""
        return torch.cat([self(theta, *block) for block in zip(x.split(size), t.split(size), strict=True)])

    def jacobian(self, theta: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(mem (n,), dmem/dtheta (n, P))``, columns in the order of the buffers."""
        w = self.unpack(theta)
        layers = self._layers(w, x, t)
        last = layers[-1].h[:, -1]
        mem = torch.addmv(w["out_bias"], last, w["out_weight"])
        columns = {"out_weight": last, "out_bias": torch.ones_like(mem)[:, None]}
        at_h = w["out_weight"].expand_as(layers[-1].h)
        for i in range(self.n_layers - 1, -1, -1):
            conv, mix, seen, a, h = layers[i]
            at_h = (h > 0) * at_h
            at_a = (a > 0) * (at_h @ mix)
            suffix = f"_{i + 1}" if i else ""
            columns |= {"mix_weight" + suffix: _outer(at_h, a), "mix_bias" + suffix: at_h.sum(1)}
            columns["conv_bias" + suffix] = at_a.sum(1)
            columns["conv_weight" + suffix] = (at_a[..., None] * seen).sum(1).flatten(1) if i else _outer(at_a, seen)
            if i:
                at_h = torch.zeros_like(layers[i - 1].h)
                for j in range(conv.shape[1]):
                    at_h[:, j : j + at_a.shape[1]] += at_a * conv[:, j]
        return mem, torch.cat([columns[name] for name in self.shapes], 1)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """``(n, P, p)``, ``(n, P, q)`` -> sums over P of products, ``(n, p q)``."""
    if a.shape[1] == 1:
        return (a[:, 0, :, None] * b[:, 0, None, :]).flatten(1)
    return (a.transpose(1, 2) @ b).flatten(1)
