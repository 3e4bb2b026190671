"""The compiler of the kernels that are written in vectors (:mod:`sdn.kernels.simd`); they need numba's compiler."""

from __future__ import annotations

from pathlib import Path

from sdn.kernels.compiler import compiler
from sdn.kernels.simd_psi import FILES

__all__ = ["jit"]
_FILES = (Path(__file__).with_name(f"{part}_kernels.py") for part in ("conv", "dense", "mix", "mode", "neuron", "norm"))
jit = compiler([*FILES, *_FILES])
