"""The compiler of the kernels that are written in vectors (:mod:`sdn.kernels.simd`); they need numba's compiler."""

from __future__ import annotations

from pathlib import Path

from sdn.kernels import cpu_jit, simd  # the first says where nothing is compiled
from sdn.kernels.compiler import compiler

__all__ = ["jit"]
_FILES = (Path(__file__).with_name(f"{part}_kernels.py") for part in ("conv", "mix", "mode", "norm"))
jit = compiler([Path(cpu_jit.__file__), Path(simd.__file__), *_FILES])
