"""``jit``: numba's compiler as the kernels here use it."""

from __future__ import annotations

from numba import njit


def jit(function):  # noqa: ANN201
    """``numba.njit`` without the GIL, cached on disk where some folder can be written."""
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    if function.__name__.startswith("_"):  # called by compiled code alone
        options["no_cpython_wrapper"] = True
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside the file nor in the user's cache folder may we write
        return njit(**options)(function)
