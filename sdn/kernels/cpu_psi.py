"""The surrogate gradients of :mod:`sdn.surrogate` on the CPU.

psi(v) is height shape(sharp |v|), and of the triangle max(0, height - sharp |v|): one multiplication less. ``one``
gives constants the type of the rest; a literal would turn float32 into float64.
"""

from __future__ import annotations

import math

import numpy as np

from ..surrogate import Surrogate
from .cpu_jit import jit

KINDS = {"triangle": 0, "rectangle": 1, "sigmoid": 2, "atan": 3}
TRIANGLE = KINDS["triangle"]
_HEIGHT = {"triangle": 1.0, "rectangle": 0.5, "sigmoid": 1.0, "atan": 1 / math.pi}


def psi_arguments(surrogate: Surrogate, dtype: np.dtype) -> tuple[int, np.floating, np.floating]:
    """``(kind, sharp, height)`` for :func:`slope`."""
    name, width = surrogate
    sharp = 1 / width**2 if name == "triangle" else 1 / width
    return KINDS[name], dtype.type(sharp), dtype.type(_HEIGHT[name] / width)


@jit
def triangle(distance, sharp, height, zero):  # noqa: ANN201
    w = height - distance * sharp
    return zero if w < zero else w


@jit
def _rectangle(z, one):
    return one if z < one else one - one


@jit
def _sigmoid(z, one):
    e = math.exp(-z)
    return e / ((one + e) * (one + e))


@jit
def _atan(z, one):
    return one / (one + z * z)


@jit(inline="always")  # as if written in its callers: they know that no index is negative
def slope(work, grad, at, count, kind, sharp, height) -> None:
    """work[grad + j] *= psi(work[at + j] - 1) for j < count."""
    one, zero = work.dtype.type(1), work.dtype.type(0)
    if kind == 0:
        for j in range(count):
            work[grad + j] *= triangle(abs(work[at + j] - one), sharp, height, zero)
    elif kind == 1:
        for j in range(count):
            work[grad + j] *= _rectangle(abs(work[at + j] - one) * sharp, one) * height
    elif kind == 2:
        for j in range(count):
            work[grad + j] *= _sigmoid(abs(work[at + j] - one) * sharp, one) * height
    else:
        for j in range(count):
            work[grad + j] *= _atan(abs(work[at + j] - one) * sharp, one) * height
