"""Recordings of an event camera: cut into slices, and kept as lists of events that are binned when they are read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.checksum import checksum
from sdn.errors import UserError
from sdn.files import atomic_path
from src.dataloaders.contents import first_changed, sha256

FRAMES, FRAME_US, SIDE = 68, 25_000, 128
_FRAME_SHAPE = (2, SIDE, SIDE)
_CELLS = math.prod(_FRAME_SHAPE)


class EventFile:
    """Slices as lists of events: cell numbers (uint32) end to end in one file, a small index beside it.

    Cell number = ((frame * 2 + polarity) * 128 + y) * 128 + x. The index (``.npz``) is written last: without it the
    file is unfinished.

    Attributes:
        label, user, recording, frames: (n,) int64, one entry a slice; ``frames`` is how many were recorded.
    """

    _COLUMNS = ("label", "user", "recording", "frames")

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with np.load(path.with_suffix(".npz")) as index:
                self.label, self.user, self.recording, self.frames = (index[name] for name in self._COLUMNS)
                self._ends = index["ends"]
                expected = str(index["sha256"]) if "sha256" in index.files else ""  # older files have none
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(f"its index cannot be read ({error})") from error
        if not path.is_file() or path.stat().st_size != 4 * int(self._ends[-1]):
            raise self._damaged("it is missing or cut short")
        if expected and first_changed({path: expected}, path.with_suffix(".seen.json")):
            raise self._damaged("it was changed after it was written")
        self._map: np.ndarray | None = None
        columns = {name: torch.from_numpy(getattr(self, name)) for name in self._COLUMNS}
        self.content = checksum(columns | {"ends": torch.from_numpy(self._ends)}, {"cells": expected})
        """A checksum of all slices."""

    def __len__(self) -> int:
        return len(self.label)

    def cells(self, index: int) -> np.ndarray:
        """Cell numbers (events,) of one slice."""
        if self._map is None:
            self._map = np.memmap(self.path, np.uint32, mode="r")
        start = int(self._ends[index - 1]) if index else 0
        return self._map[start : int(self._ends[index])]

    def compare(self, slices: Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]) -> None:
        """Compare every slice with ``slices``, as given to :meth:`write`.

        Raises:
            UserError: one differs.
        """
        number = -1
        for number, (cells, row) in enumerate(slices):
            mine = tuple(int(getattr(self, name)[number]) for name in self._COLUMNS) if number < len(self) else ()
            if mine != tuple(map(int, row)) or not np.array_equal(self.cells(number), cells.astype(np.uint32)):
                raise self._damaged(f"slice {number} is not what its recording gives")
        if number + 1 != len(self):
            raise self._damaged(f"it holds {len(self)} slices, its recordings {number + 1}")

    def counts(self, index: int) -> Tensor:
        """Frames (68, 2, 128, 128) float of one slice: how many events fell on each cell."""
        counts = np.bincount(self.cells(index).astype(np.int64), minlength=FRAMES * _CELLS)
        return torch.from_numpy(counts.astype(np.float32)).reshape(FRAMES, *_FRAME_SHAPE)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a finished file is there."""
        return path.is_file() and path.with_suffix(".npz").is_file()

    @classmethod
    def write(cls, path: Path, slices: Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]) -> None:
        """Write ``(cells, (label, user, recording, frames))`` of every slice, atomically."""
        rows, sizes = [], []
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for cells, row in slices:
                cells.astype(np.uint32).tofile(file)
                rows.append(row)
                sizes.append(len(cells))
        columns = dict(zip(cls._COLUMNS, np.array(rows, np.int64).T, strict=True))
        with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, ends=np.cumsum(sizes), sha256=np.array(sha256(path)), **columns)

    def _damaged(self, what: str) -> UserError:
        return UserError(f"the cached slices {self.path} are damaged: {what}; delete {self.path.stem}.* there")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}  # a loader worker opens the file itself


def cut(events: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Cell numbers and number of recorded frames of each slice of a recording.

    Args:
        events: structured array with fields x, y (pixels), p (polarity) and t (microseconds).

    Raises:
        ValueError: no events, or events off the sensor.
    """
    if len(events) == 0:
        raise ValueError("it holds no events")
    x, y, p, time = (events[name].astype(np.int64) for name in ("x", "y", "p", "t"))
    if min(x.min(), y.min(), p.min()) < 0 or max(x.max(), y.max()) >= SIDE or p.max() > 1:
        raise ValueError("it has events off the sensor")
    time -= time.min()
    frame = time // FRAME_US
    cells = (((frame % FRAMES) * 2 + p) * SIDE + y) * SIDE + x
    in_order = np.argsort(time, kind="stable")
    frame, cells = frame[in_order], cells[in_order]
    n_slices = int(time.max()) // (FRAMES * FRAME_US)
    bounds = np.searchsorted(frame, np.arange(max(1, n_slices) + 1) * FRAMES)
    for start, stop in pairwise(bounds):
        yield cells[start:stop], FRAMES if n_slices else int(frame[-1]) + 1
