"""``jit``: numba's compiler as the kernels here use it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from numba import njit

from sdn.kernels import simd


def jit(function):  # noqa: ANN201
    """``numba.njit`` without the GIL, cached on disk where some folder can be written."""
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    if function.__name__.startswith("_"):  # called by compiled code alone
        options["no_cpython_wrapper"] = True
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside the file nor in the user's cache folder may we write
        return njit(**options)(function)
    with suppress(AttributeError):  # the cache knows the age of the function's own file; make it know that of simd's
        file, status = compiled._cache._cache_file, Path(simd.__file__).stat()
        file._source_stamp = (file._source_stamp, status.st_mtime, status.st_size, simd.WIDTH)
    return compiled
