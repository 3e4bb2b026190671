"""How everything that numba compiles here is compiled: without the GIL, and cached on disk.

numba keeps compiled code as long as the file of a function is unchanged. What a function calls may stand in another
file, so the name that its code is kept under carries a checksum of all files of its group.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from numba import njit


def checksum(files: Iterable[Path]) -> str:
    """Eight hexadecimal digits that change with any byte of ``files``."""
    sum_ = 0
    for file in sorted(files):
        sum_ = zlib.crc32(file.read_bytes(), sum_)
    return f"{sum_:08x}"


def compiler(files: Iterable[Path], **defaults: object) -> Callable:
    """``jit`` for a group of files whose functions call each other: ``@jit`` or ``@jit(option=...)``.

    Args:
        files: the group; a change in one of them compiles all anew.
        defaults: options of ``numba.njit`` beside the house's own.
    """
    group = checksum(files)

    def jit(function=None, **options):
        """``numba.njit`` without the GIL, cached on disk where some folder can be written."""
        if function is None:
            return lambda inner: jit(inner, **options)
        function.__qualname__ = f"{function.__qualname__}_{group}"
        options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **defaults, **options}
        if function.__name__.startswith("_"):  # called by compiled code alone
            options["no_cpython_wrapper"] = True
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # neither beside its file nor in the user's cache folder may we write
            return njit(**options)(function)

    return jit
