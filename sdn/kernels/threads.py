"""Threads for compiled kernels that release the GIL: as many as torch uses, and none of OpenMP's.

Plain Python threads, because they may be entered from several threads at once and survive a fork (a data loader's
worker makes its own), neither of which holds for every threading layer numba offers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

T = TypeVar("T")
_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_workers = 0


def _forget() -> None:
    global _lock, _pool, _workers
    _lock, _pool, _workers = Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _submit(works: Sequence[Callable[[], None]]) -> list[Future[None]]:
    global _pool, _workers
    with _lock:
        if _pool is None or _workers < len(works):
            if _pool is not None:
                _pool.shutdown(wait=False)  # what it has begun it still ends
            _pool, _workers = ThreadPoolExecutor(len(works), thread_name_prefix="sdn"), len(works)
        futures: list[Future[None]] = []
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down: no new threads, the caller works
            futures.extend(_pool.submit(work) for work in works)
        return futures


def _leave(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        if not future.cancel():
            future.result()


def beside(work: Callable[[], T], helpers: Sequence[Callable[[], None]]) -> T:
    """What ``work()`` returns. ``helpers`` run beside it as far as threads are free, and must end when it ends."""
    futures = _submit(helpers) if helpers else []
    try:
        return work()
    finally:
        _leave(futures)


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

    beside(work, [work] * (threads - 1))
