"""Threads for compiled kernels that release the GIL: as many as torch uses, and none of OpenMP's.

Plain Python threads, because they may be entered from several threads at once and survive a fork (a data loader's
worker makes its own), neither of which holds for every threading layer numba offers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import torch

_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_workers = 0


def _forget() -> None:
    global _lock, _pool, _workers
    _lock, _pool, _workers = Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _submit(work: Callable[[], None], copies: int) -> list[Future[None]]:
    global _pool, _workers
    with _lock:
        if _pool is None or _workers < copies:
            if _pool is not None:
                _pool.shutdown(wait=False)  # what it has begun it still ends
            _pool, _workers = ThreadPoolExecutor(copies, thread_name_prefix="sdn"), copies
        futures: list[Future[None]] = []
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down: no new threads, the caller works
            futures.extend(_pool.submit(work) for _ in range(copies))
        return futures


def spread(kernel: Callable[..., object], count: int, grain: int, *args: object) -> None:
    """Call ``kernel(first, last, *args)`` until 0 .. count - 1 are covered; ranges begin at multiples of ``grain``.

    Ranges are handed out as threads become free, about four to a thread. The caller works too.
    """
    if count <= 0:
        return
    grains = -(-count // grain)
    threads = min(torch.get_num_threads(), grains)
    if threads == 1:
        kernel(0, count, *args)
        return
    size = max(1, grains // (4 * threads)) * grain
    firsts = itertools.count(0, size)

    def work() -> None:
        while (first := next(firsts)) < count:
            kernel(first, min(first + size, count), *args)

    futures = _submit(work, threads - 1)
    try:
        work()
    finally:
        for future in futures:
            if not future.cancel():
                future.result()
