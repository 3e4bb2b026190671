"""Simulate many neurons on random currents and stream them to a data set file.

The sequences are made in chunks that depend on nothing but the data set's own description: each has a random stream
of its own, keyed by (seed, name, T, number, law, chunk), drawn by numpy on the CPU. The recurrence rounds every product
and sum to float32 as :func:`sdn.lif.lif_reference` does. So neither threads nor device change a bit of the file.

Records are written one after the other and read back where they are needed again, so that memory holds
the spikes (one byte a step) and a few chunks, whatever the size of the file.
"""

from __future__ import annotations

import collections
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..errors import UserError
from ..files import atomic_path
from ..lif import check_tau, lif_reference
from .archive import open_archive
from .data import DTYPES, FORMAT, VERSION, file_name
from .laws import Law

try:
    import numba
except ImportError:
    numba = None

A = TypeVar("A")
B = TypeVar("B")
# Numbers drawn from one random stream; part of the definition of a data set.
_CHUNK = 2**18
# Numbers that a GPU scans at once.
_DEVICE_BLOCK = 2**24


def _scan_rows(current: np.ndarray, tau: np.float32, mem: np.ndarray, spike: np.ndarray) -> None:
    zero, one = np.float32(0), np.float32(1)
    rows, length = current.shape
    for row in range(rows):
        u = zero
        for t in range(length):
            decayed = tau * u
            before = decayed + current[row, t]
            fired = before >= one
            mem[row, t] = decayed
            spike[row, t] = fired
            u = zero if fired else before


# Without fastmath LLVM may not contract the product and the sum into one rounding.
_compiled_scan = numba.njit(nogil=True)(_scan_rows) if numba else None


def scan(current: np.ndarray, tau: float, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Exact LIF with hard reset to 0 and threshold 1: current ``(N, T)`` float32 -> ``(mem float32, spike uint8)``."""
    if device == "cpu" and _compiled_scan:
        mem, spike = np.empty_like(current), np.empty(current.shape, np.uint8)
        _compiled_scan(current, np.float32(tau), mem, spike)
        return mem, spike
    with torch.no_grad():
        decayed, fired, _ = lif_reference(torch.from_numpy(current).to(device), tau)
        return decayed.cpu().numpy(), fired.to(torch.uint8).cpu().numpy()


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the content of a data set."""

    name: str
    number: int
    timestep: int
    law: Law
    tau: float
    seed: int = 0

    def check(self) -> Recipe:
        """Return itself, or raise :class:`UserError` for the first part that makes no sense."""
        if not self.name or any(c in self.name for c in ("/", "\\", "\0")):
            raise UserError(f"the name of a data set becomes part of a file name and cannot be {self.name!r}")
        if self.number < 1:
            raise UserError(f"the number of sequences must be at least 1, not {self.number}")
        if self.timestep < 1:
            raise UserError(f"a sequence needs at least 1 time step, not {self.timestep}")
        if self.seed < 0:
            raise UserError(f"the seed must be a whole number of at least 0, not {self.seed}")
        check_tau(self.tau)
        return self

    @property
    def file_name(self) -> str:
        return file_name(self.name, self.law, self.timestep, self.number, self.tau)

    @property
    def size(self) -> int:
        """Bytes of the three tensors."""
        return self.number * self.timestep * sum(dtype.itemsize for dtype in DTYPES.values())

    def header(self) -> dict[str, int | float | str]:
        """The plain facts stored with the tensors."""
        own: dict[str, int | float | str] = {"format": FORMAT, "version": VERSION, "tau": self.tau, "v_th": 1.0}
        own |= {"reset": "hard", "u_r": 0.0}
        return own | self.law.facts() | {"name": self.name, "seed": self.seed}

    def slices(self, numbers: int) -> list[slice]:
        """The rows in pieces of at most ``numbers`` numbers, but at least a row."""
        rows = max(1, numbers // self.timestep)
        return [slice(start, min(start + rows, self.number)) for start in range(0, self.number, rows)]

    def draw(self, chunk: int, rows: int) -> np.ndarray:
        """The input currents of chunk number ``chunk``, ``(rows, T)`` float32."""
        text = f"{self.seed}|{self.name}|{self.timestep}|{self.number}|{self.law.tag}"
        entropy = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy, spawn_key=(chunk,))))
        return self.law.draw(rng, rows, self.timestep)


def write(
    recipe: Recipe,
    path: str | os.PathLike[str],
    device: str = "cpu",
    threads: int | None = None,
    advance: Callable[[int], object] = lambda rows: None,
) -> float:
    """Simulate ``recipe`` into the file ``path``, atomically, and return the spiking rate (spikes per step).

    Args:
        device: where the recurrence runs, a torch device.
        threads: worker threads; all cores by default.
        advance: called with the number of sequences whenever they have been drawn, and again when simulated.

    Raises:
        UserError: a recipe that makes no sense, a folder that cannot be written, or a disk without room for the file.
    """
    recipe.check()
    shape = (recipe.number, recipe.timestep)
    tensors = {name: (dtype, shape) for name, dtype in DTYPES.items()}
    threads = threads or _cores()
    with atomic_path(path) as temporary:
        _check_room(temporary, recipe.size)
        with (
            ThreadPoolExecutor(threads) as pool,
            open_archive(temporary, tensors, {"header": recipe.header()}) as archive,
        ):
            chunks = [(i, rows.stop - rows.start) for i, rows in enumerate(recipe.slices(_CHUNK))]
            with archive.record("input") as out:
                for drawn in _in_order(pool, 2 * threads, lambda chunk: recipe.draw(*chunk), chunks):
                    out.write(drawn.data)
                    advance(len(drawn))
            start, spikes = archive.offset("input"), np.empty(shape, np.uint8)

            def simulate(rows: slice) -> tuple[slice, np.ndarray]:
                skip, count = (n * recipe.timestep for n in (rows.start, rows.stop - rows.start))
                current = np.fromfile(temporary, np.float32, count, offset=start + 4 * skip)
                mem, spikes[rows] = scan(current.reshape(-1, recipe.timestep), recipe.tau, device)
                return rows, mem

            blocks = recipe.slices(_CHUNK if device == "cpu" else _DEVICE_BLOCK)
            with archive.record("mem") as out:
                for rows, mem in _in_order(pool, 2 * threads, simulate, blocks):
                    out.write(mem.data)
                    advance(rows.stop - rows.start)
            with archive.record("spike") as out:
                out.write(spikes.data)
    return np.count_nonzero(spikes) / spikes.size


def _in_order(pool: ThreadPoolExecutor, ahead: int, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Like ``pool.map``, but no more than ``ahead`` results wait in memory."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _check_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise UserError(
            f"the data set needs {size / 1e6:.0f} MB and {path.parent} has {free / 1e6:.0f} MB free; "
            "free some space, or lower --number or --timestep"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
