"""Packed data sets on disk: n rows of one shape in a few large files, built in parallel, resumed after an interruption.

A folder holds

- ``rows-00000.npy``, ``rows-00001.npy``, ...: ``per_shard`` rows each (fewer in the last), plain NumPy files;
- ``columns.npz``: what belongs to each row, such as its class, as arrays of length n;
- ``manifest.json``: settings, n, row shape, dtype, rows per file and the SHA-256 of every file. It is written last:
  a folder without it is unfinished, and building again keeps the files that are there;
- ``seen.json``: size and time of each file when its SHA-256 was last compared. Opening compares those that changed.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sdn.checksum import checksum
from sdn.errors import UserError
from sdn.files import atomic_path, write_text

from .cache import compares, locked, to_be_compared
from .contents import first_changed, note, sha256

MANIFEST = "manifest.json"
SEEN = "seen.json"
_COMPARED = 32
"""Rows that are made again to be compared."""


@dataclass(frozen=True)
class Layout:
    """n rows of ``shape`` and ``dtype``, ``per_shard`` to a file."""

    n: int
    shape: tuple[int, ...]
    dtype: str
    per_shard: int

    @property
    def n_shards(self) -> int:
        return -(-self.n // self.per_shard)

    @property
    def n_bytes(self) -> int:
        return self.n * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the row after its last."""
        return shard * self.per_shard, min(self.n, (shard + 1) * self.per_shard)


def build(
    folder: Path,
    layout: Layout,
    make: Callable[[int, int], np.ndarray],
    columns: Callable[[], Mapping[str, np.ndarray]],
    settings: Mapping[str, Any],
    workers: int = 1,
    label: str = "rows",
) -> None:
    """Fill ``folder`` with ``make(start, stop)`` for every shard that is not there yet, and with ``columns()``.

    Returns at once if the folder is complete; within :func:`src.dataloaders.cache.comparing` it is compared with its
    checksums, its ``columns()`` and some of its rows first.

    ``make`` runs in ``workers`` threads (compiled code that lets go of the interpreter), with one worker in order of
    rows. Several processes may call this at once: one builds, the others wait.

    Raises:
        UserError: the disk has too little room, or what was compared differs.
    """
    if (folder / MANIFEST).is_file():
        if to_be_compared(folder):
            _compare(Shards(folder), make, columns())
        return
    with locked(folder.with_name(folder.name + ".lock")):
        if (folder / MANIFEST).is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        todo = [shard for shard in range(layout.n_shards) if not _finished(folder, layout, shard)]
        _require_room(folder, layout, len(todo))
        _make_shards(folder, layout, make, todo, workers, label)
        with atomic_path(folder / "columns.npz") as temporary, temporary.open("wb") as handle:
            np.savez(handle, **columns())
        files = [_shard_path(folder, shard) for shard in range(layout.n_shards)] + [folder / "columns.npz"]
        manifest = {
            "settings": dict(settings),
            "n": layout.n,
            "shape": list(layout.shape),
            "dtype": layout.dtype,
            "per_shard": layout.per_shard,
            "sha256": {file.name: sha256(file) for file in files},
        }
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _make_shards(
    folder: Path,
    layout: Layout,
    make: Callable[[int, int], np.ndarray],
    todo: Sequence[int],
    workers: int,
    label: str,
) -> None:
    def one(shard: int) -> int:
        start, stop = layout.bounds(shard)
        rows = make(start, stop)
        if rows.shape != (stop - start, *layout.shape) or rows.dtype != layout.dtype:
            raise ValueError(f"made {rows.dtype} {rows.shape} for rows {start}:{stop} of {layout}")
        with atomic_path(_shard_path(folder, shard)) as temporary, temporary.open("wb") as handle:
            np.save(handle, rows)
        return stop - start

    total = sum(stop - start for start, stop in map(layout.bounds, todo))
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, desc=label, unit="row", unit_scale=True) as bar:
        waiting = iter(todo)
        running = {pool.submit(one, shard) for shard in islice(waiting, workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                bar.update(future.result())
                running |= {pool.submit(one, shard) for shard in islice(waiting, 1)}


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"rows-{shard:05d}.npy"


def _finished(folder: Path, layout: Layout, shard: int) -> bool:
    start, stop = layout.bounds(shard)
    try:
        rows = np.load(_shard_path(folder, shard), mmap_mode="r")
    except (OSError, ValueError):
        return False
    return rows.shape == (stop - start, *layout.shape) and rows.dtype == layout.dtype


def _require_room(folder: Path, layout: Layout, shards: int) -> None:
    needed = layout.n_bytes * shards // max(layout.n_shards, 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} needs {needed / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free; "
            f"free some space or set DATA_CACHE to a folder on a larger disk"
        )


def complete(folder: Path) -> bool:
    """Whether ``folder`` is finished and :func:`build` would have nothing to do or to compare."""
    return (folder / MANIFEST).is_file() and not compares()


def _compare(shards: Shards, make: Callable[[int, int], np.ndarray], columns: Mapping[str, np.ndarray]) -> None:
    """Every file with its checksum, the columns and some rows with their source."""
    shards.verify()
    for name in {*columns, *shards.columns}:
        if name not in columns or not np.array_equal(columns[name], shards.columns.get(name)):
            raise shards.damaged(f"its {name} is not what its source gives")
    n = len(shards)
    for index in sorted({*np.linspace(0, n - 1, min(n, _COMPARED)).astype(int).tolist()}):
        if not np.array_equal(make(index, index + 1), shards.rows([index])):
            raise shards.damaged(f"row {index} is not what its source gives")


class Shards:
    """Read access to a finished folder: ``shards.rows([5, 3])`` is (2, ...) in that order; files are memory mapped.

    Attributes:
        layout: :class:`Layout`. ``columns``: the per-row arrays. ``settings``: what the folder was built with.

    Raises:
        UserError: the folder is unfinished, its manifest cannot be read, or a file is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            self.layout = Layout(manifest["n"], tuple(manifest["shape"]), manifest["dtype"], manifest["per_shard"])
            self.settings: dict[str, Any] = manifest["settings"]
            self.sha256: dict[str, str] = manifest["sha256"]
            with np.load(folder / "columns.npz") as columns:
                self.columns = {name: columns[name] for name in columns.files}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise self.damaged(f"its manifest or columns cannot be read ({error})") from error
        self._maps: dict[int, np.ndarray] = {}
        files = {folder / name: value for name, value in self.sha256.items()}
        if (bad := first_changed(files, folder / SEEN)) is not None:
            raise self.damaged(f"{bad.name} is missing or was changed after it was written")
        note(re.sub("-[0-9a-f]{12}$", "", folder.name), self._content(), folder)

    def __len__(self) -> int:
        return self.layout.n

    def _content(self) -> str:
        """A checksum of rows and columns, whatever they were made by."""
        rows = [value for name, value in sorted(self.sha256.items()) if name.endswith(".npy")]
        columns = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in self.columns.items()}
        return checksum(columns, {"rows": " ".join(rows)})

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Copies of the rows ``indices`` (k, *shape), in the order asked for."""
        indices = np.asarray(indices, np.int64)
        out = np.empty((len(indices), *self.layout.shape), self.layout.dtype)
        shard_of, row_of = np.divmod(indices, self.layout.per_shard)
        for shard in np.unique(shard_of):
            mine = shard_of == shard
            out[mine] = self._map(int(shard))[row_of[mine]]
        return out

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            if not _finished(self.folder, self.layout, shard):
                raise self.damaged(f"{_shard_path(self.folder, shard).name} is missing or cut short")
            self._maps[shard] = np.load(_shard_path(self.folder, shard), mmap_mode="r")
        return self._maps[shard]

    def verify(self) -> None:
        """Compare the SHA-256 of every file with the manifest.

        Raises:
            UserError: a file is missing or differs.
        """
        for name, expected in tqdm(self.sha256.items(), desc="verify", unit="file"):
            file = self.folder / name
            if not file.is_file() or sha256(file) != expected:
                raise self.damaged(f"{name} is missing or was changed after it was written")

    def damaged(self, what: str) -> UserError:
        return UserError(
            f"the packed data in {self.folder} is damaged: {what}; delete that folder and prepare it again"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}  # a loader worker opens the files itself


class ShardSet(Dataset):
    """The rows ``indices`` of :class:`Shards` as a map-style data set of ``(transform(rows), y)``."""

    def __init__(
        self, shards: Shards, indices: Tensor, y: Tensor, transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if len(indices) != len(y):
            raise ValueError(f"{len(indices)} rows but {len(y)} targets")
        self.shards, self.indices, self.y, self.transform = shards, indices, y.long(), transform

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        x = torch.from_numpy(self.shards.rows(self.indices[chosen].numpy()))
        return (self.transform(x) if self.transform else x), self.y[chosen]
