"""The end of a fit: second-order refinement from several starts at once, of which the best is kept.

Where first-order steps end depends on where they began; the neuron's equations written down as units
(:mod:`sdn.fitting.construct`, which draws some of them) are other starts, and which refines to the least error is not
known before. So all are refined, as many beside each other as there are threads. Each stays on one: nothing waits, and
the bits depend on no core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..network import ReducedSDN
from .construct import construct, constructible
from .metrics import evaluate
from .refine import Data, refine

FITTED, CONSTRUCTED = "fitted", ("first constructed", "second constructed", "third constructed")
Progress = Callable[[str, int, float], None]  # start, step, held-out error


def count_starts(reduced: ReducedSDN) -> int:
    """How many networks :func:`sharpen` refines: the fitted one, and others where one of its size can be written."""
    return 1 + len(CONSTRUCTED) * constructible(*reduced.sizes)


class _StoppedError(Exception):
    """The other start has failed, or the user wants no more."""


def sharpen(
    reduced: ReducedSDN,
    training: Data,
    validation: Data,
    steps: int,
    seed: int = 0,
    progress: Progress = lambda start, step, error: None,
) -> tuple[ReducedSDN, dict[str, float]]:
    """``reduced`` or a constructed network of its size after ``steps`` of refinement, and the mean errors of all.

    Args:
        reduced: a fitted network; where none of its size can be constructed it is the only start.
        training: current and mem, ``(N, L)`` each, to refine on.
        validation: the same; the mean error there decides.
        steps: of each refinement.
        seed: of windows and of the first construction; the next ones have the next seeds.
        progress: called from the threads that refine, every 10 steps.
    """
    starts = {FITTED: (reduced, seed)}
    if count_starts(reduced) > 1:
        for own, name in enumerate(CONSTRUCTED, start=seed):
            d, k, layers = reduced.sizes
            other = construct(reduced.tau, d, k, seed=own, n_layers=layers)
            starts[name] = ReducedSDN(dict(other.named_buffers()), reduced.tau, reduced.meta | other.meta), own
    stop = threading.Event()

    def alive() -> None:
        if stop.is_set():
            raise _StoppedError

    def run(name: str) -> ReducedSDN:
        tell = lambda step, error: progress(name, step, error)  # noqa: E731
        start, own = starts[name]
        return refine(start, [training], steps, seed=own, progress=tell, before_step=alive)

    ends = _on_one_core_each(run, list(starts), stop)
    errors = {name: _error(end, validation) for name, end in zip(starts, ends, strict=True)}
    best = min(errors, key=errors.__getitem__)
    sdn = ends[list(starts).index(best)]
    sdn.meta["start"] = best
    return sdn, errors


def _on_one_core_each(
    run: Callable[[str], ReducedSDN], names: Sequence[str], stop: threading.Event
) -> list[ReducedSDN]:
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(len(names), threads), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            torch.set_num_threads(1)
            futures = [pool.submit(run, name) for name in names]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(threads)


def _error(sdn: ReducedSDN, data: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        return evaluate(sdn, *data).mae_mean
