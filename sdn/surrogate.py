"""The spike function H and the surrogate gradients that stand in for its derivative.

Each is the slope of a step from 0 to 1 that is smooth over ``width`` w, so its area is 1 (v: distance from the
threshold, in thresholds)::

    triangle     psi(v) = max(0, 1 - |v| / w) / w               w = 1     slope of a piecewise parabola
    rectangle    psi(v) = 1 / 2w where |v| < w, else 0          w = 1/2   slope of a ramp
    sigmoid      psi(v) = q (1 - q) / w,  q = sigmoid(v / w)    w = 1/4   slope of sigmoid(v / w)
    atan         psi(v) = 1 / (pi w (1 + (v / w)^2))            w = 1/pi  slope of atan(v / w) / pi + 1/2

The widths are the defaults: with them psi(0) = 1. Sources: triangle and rectangle are named in arXiv 2408.14909
(half-width 1 is the released code's), the rectangle is Wu et al. 2018 (STBP), sigmoid and arc tangent as in Fang et al.
2021; alpha there is 1/w for the sigmoid and 2 / (pi w) for the arc tangent.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import UserError
from .named import suggestion

WIDTHS: dict[str, float] = {"triangle": 1.0, "rectangle": 0.5, "sigmoid": 0.25, "atan": 1 / math.pi}
"""The surrogate gradients and the width each has by default."""


class Surrogate(NamedTuple):
    """A surrogate gradient: one of :data:`WIDTHS` by name, and its width in thresholds."""

    name: str = "triangle"
    width: float = 1.0

    def __call__(self, v: Tensor) -> Tensor:
        """psi(v), any shape. NaN stays NaN (but 0 for the rectangle)."""
        k = 1 / self.width
        if self.name == "triangle":
            return (1 - v.abs() * k).clamp_min(0) * k
        if self.name == "rectangle":
            return (v.abs() < self.width).to(v.dtype) * (0.5 * k)
        if self.name == "sigmoid":
            q = torch.sigmoid(-v.abs() * k)  # of the far side, where 1 - q does not cancel
            return q * (1 - q) * k
        return k / (math.pi * (1 + (v * k) * (v * k)))


TRIANGLE = Surrogate()


def make_surrogate(name: str = "triangle", width: float | None = None) -> Surrogate:
    """The surrogate gradient a config names; ``width`` None: its default.

    Raises:
        UserError: an unknown name, or a width that is not a finite number above 0.
    """
    if name not in WIDTHS:
        raise UserError(f"unknown surrogate gradient {name!r}{suggestion(str(name), WIDTHS)}")
    if width is None:
        return Surrogate(name, WIDTHS[name])
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < math.inf:
        raise UserError(f"the width of a surrogate gradient must be a number above 0, not {width!r}")
    return Surrogate(name, float(width))


def triangle(v: Tensor) -> Tensor:
    """psi(v) = max(0, 1 - |v|): the triangle of width 1."""
    return TRIANGLE(v)


class _Spike(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor, surrogate: Surrogate) -> Tensor:
        return (v >= 0).to(v.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.surrogate = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad * ctx.surrogate(v), None


class _DualSpike(_Spike):
    """The same with a forward-mode rule, which torch.compile does not trace."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        _Spike.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (v,) = ctx.saved_tensors
        return tangent * ctx.surrogate(v)


def spike(v: Tensor, surrogate: Surrogate = TRIANGLE) -> Tensor:
    """s = H(v) with H(0) = 1 and ds/dv := psi(v), also forward-mode and twice. Any shape; dtype of ``v``."""
    return (_Spike if torch.compiler.is_compiling() else _DualSpike).apply(v, surrogate)
