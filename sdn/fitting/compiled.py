"""The compiler of the fit's loops, which are written in vectors (:mod:`sdn.kernels.simd`); it needs numba's."""

from __future__ import annotations

from pathlib import Path

from ..kernels import atomic, cpu_jit, simd  # the second says where nothing is compiled
from ..kernels.compiler import compiler

__all__ = ["jit"]
_FILES = (Path(__file__).with_name(f"{part}.py") for part in ("passes", "team"))
jit = compiler([*map(Path, (atomic.__file__, cpu_jit.__file__, simd.__file__)), *_FILES])
