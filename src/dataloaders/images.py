"""Image sets of the hub, decoded once to a compact cache of gray pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdn.errors import UserError
from src.paths import data_root

from .base import SequenceData, TensorSet, load_hub, random_split
from .cache import cached_tensors, source_stamp


class GrayImages(SequenceData):
    """A labelled image set with a train and a test split, row by row as sequences: x (B, rows * columns, 1).

    Validation samples are drawn from the train split by ``seed``. Subclasses name the source and :meth:`pixels`.
    """

    hub: ClassVar[str]
    size: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    column: ClassVar[str]
    d_output = 10
    l_max: int

    def __init__(self, data_dir: str | None = None, val_size: int = 5000, seed: int = 42) -> None:
        super().__init__(data_dir, seed)
        self.val_size = val_size

    def pixels(self, x: Tensor) -> Tensor:
        """Gray values 0..255 (B, L) uint8 -> what the model sees (B, L) float."""
        return x.float().div(255)

    def order(self) -> Tensor | None:
        """A permutation of the L positions, or None for row by row."""
        return None

    def prepare(self) -> None:
        self._tensors()

    def setup(self) -> None:
        tensors, order = self._tensors(), self.order()
        n = len(tensors["train_y"])
        if not 0 < self.val_size < n:
            raise UserError(f"dataset.val_size must be between 1 and {n - 1}, not {self.val_size}")
        train, val = random_split(n, [n - self.val_size, self.val_size], self.seed)
        x = {split: tensors[f"{split}_x"] for split in ("train", "test")}
        if order is not None:
            x = {split: values[:, order] for split, values in x.items()}
        transform = _Transform(self.pixels)
        self.train = TensorSet(x["train"][train], tensors["train_y"][train], transform)
        self.val = TensorSet(x["train"][val], tensors["train_y"][val], transform)
        self.test = TensorSet(x["test"], tensors["test_y"], transform)

    def _sources(self) -> list[Path]:
        return [self.data_dir] if self._data_dir else [data_root() / folder for folder in self.folders]

    def _tensors(self) -> dict[str, Tensor]:
        files = [sorted(folder.rglob("*.parquet")) for folder in self._sources() if folder.is_dir()]
        source = source_stamp(*next(filter(None, files), [])) or self.hub
        return cached_tensors(self._name_, {"version": 1, "source": source}, self._decode)

    def _decode(self) -> dict[str, Tensor]:
        splits = load_hub(self._name_, self._sources(), self.hub, self.size)
        if not {"train", "test"} <= set(splits):
            raise UserError(
                f"{self._name_} in {self._sources()[0]} has no train and test split; download {self.hub} anew"
            )
        tensors = {}
        for split in ("train", "test"):
            tensors[f"{split}_x"] = decode(splits[split], self.column, self.l_max)
            tensors[f"{split}_y"] = torch.tensor(splits[split]["label"], dtype=torch.uint8)
        return tensors


class _Transform:
    """(B, L) uint8 -> (B, L, 1) float; a class so that workers can receive it."""

    def __init__(self, pixels: Callable[[Tensor], Tensor]) -> None:
        self.pixels = pixels

    def __call__(self, x: Tensor) -> Tensor:
        return self.pixels(x).unsqueeze(-1)


def decode(rows: Any, column: str, length: int) -> Tensor:
    """The images of a column as gray pixels (N, length) uint8; colour becomes luma.

    Raises:
        UserError: there is no such column, or an image has another size.
    """
    import datasets
    from PIL import Image

    names: Sequence[str] = rows.column_names
    if column not in names:
        raise UserError(f"no column {column!r} among {', '.join(names)}; this is another data set")
    out = np.empty((len(rows), length), dtype=np.uint8)
    for i, encoded in enumerate(rows.cast_column(column, datasets.Image(decode=False))[column]):
        raw = encoded["bytes"]
        with Image.open(io.BytesIO(raw) if raw is not None else encoded["path"]) as image:
            gray = np.asarray(image.convert("L"))
        if gray.size != length:
            raise UserError(f"image {i} has {gray.size} pixels instead of {length}; this is another data set")
        out[i] = gray.ravel()
    return torch.from_numpy(out)
