"""How the CPU's kernels are compiled with numba: without the GIL, and cached on disk.

numba keeps compiled code as long as the file of a function is unchanged. What a function calls may stand in another
file here, so the name that its code is kept under carries a checksum of all of them.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from numba import config, njit
from numba.core import types
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("numba compiles nothing while NUMBA_DISABLE_JIT is set")


def _checksum() -> str:
    sum_ = 0
    for file in sorted(Path(__file__).parent.glob("cpu*.py")):
        sum_ = zlib.crc32(file.read_bytes(), sum_)
    return f"{sum_:08x}"


CHECKSUM = _checksum()


def jit(function=None, **options):  # noqa: ANN201
    """``numba.njit`` without the GIL, cached on disk where some folder can be written."""
    if function is None:
        return lambda inner: jit(inner, **options)
    function.__qualname__ = f"{function.__qualname__}_{CHECKSUM}"
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **options}
    if function.__name__.startswith("_"):  # called by compiled code alone
        options["no_cpython_wrapper"] = True
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache folder may we write
        return njit(**options)(function)


@intrinsic
def apart(typing):  # noqa: ANN201
    """Keep the function that calls this out of its callers: inlined, its loops are optimised again in each of them."""

    def codegen(context, builder, signature, values):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen
