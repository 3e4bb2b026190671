# ruff: noqa: ANN201
"""The surrogate gradients of :mod:`sdn.surrogate` in vectors, as :mod:`sdn.kernels.cpu_psi` has them in loops."""

from __future__ import annotations

from pathlib import Path

from . import cpu_jit, simd  # the first says where nothing is compiled
from .compiler import compiler
from .simd import above, absolute, at_least, exp, select, splat

FILES = [Path(module) for module in (cpu_jit.__file__, simd.__file__, __file__)]
"""What any group of files that uses vectors hangs on."""
jit = compiler(FILES)


@jit
def psi(v, kind, sharp, height):
    """psi(v), with ``kind``, ``sharp`` and ``height`` of :func:`sdn.kernels.cpu_psi.psi_arguments`. NaN as there."""
    zero, top = splat(sharp - sharp), splat(height)
    z = absolute(v) * splat(sharp)
    if kind == 0:
        w = top - z
        return select(at_least(zero, w), zero, w)
    one = splat(sharp / sharp)
    if kind == 1:
        return select(above(one, z), top, zero)
    if kind == 2:
        e = exp(zero - z)
        return e / ((one + e) * (one + e)) * top
    return one / (one + z * z) * top
