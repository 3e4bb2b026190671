"""The compiler of the CPU's kernels, see :mod:`sdn.kernels.compiler`; where numba may not compile there is none."""

from __future__ import annotations

from pathlib import Path

from numba import config
from numba.core import types
from numba.extending import intrinsic

from .compiler import checksum, compiler

if config.DISABLE_JIT:
    raise ImportError("numba compiles nothing while NUMBA_DISABLE_JIT is set")

_FILES = list(Path(__file__).parent.glob("cpu*.py"))
CHECKSUM = checksum(_FILES)
jit = compiler(_FILES)


@intrinsic
def apart(typing):  # noqa: ANN201
    """Keep the function that calls this out of its callers: inlined, its loops are optimised again in each of them."""

    def codegen(context, builder, signature, values):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen
