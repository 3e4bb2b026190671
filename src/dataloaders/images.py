"""Image sets of the hub, decoded once to a compact cache of gray pixels."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdn.errors import UserError
from src.paths import data_root

from . import gate
from .base import SequenceData, TensorSet, load_hub, random_split
from .cache import cached_tensors, source_stamp
from .gate import Where


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
        tensors, side = {}, math.isqrt(self.l_max)
        for split in ("train", "test"):
            where = gate.row_of(split, self._sources()[0])
            gate.column(splits[split].column_names, "label", "the classes", self._sources()[0])
            tensors[f"{split}_x"] = decode(splits[split], self.column, (side, side), where)
            tensors[f"{split}_y"] = gate.class_ids(splits[split]["label"], self.d_output, where).to(torch.uint8)
        return tensors


class _Transform:
    """(B, L) uint8 -> (B, L, 1) float; a class so that workers can receive it."""

    def __init__(self, pixels: Callable[[Tensor], Tensor]) -> None:
        self.pixels = pixels

    def __call__(self, x: Tensor) -> Tensor:
        return self.pixels(x).unsqueeze(-1)


def decode(rows: Any, column: str, shape: tuple[int, int], where: Where) -> Tensor:
    """The pictures of a column as gray pixels (n, height * width) uint8, row by row; colour becomes luma.

    A picture is decoded only if it has the expected size, so that a small file cannot ask for much memory.

    Raises:
        UserError: there is no such column, or a picture is missing, damaged or of another size.
    """
    import datasets

    gate.column(rows.column_names, column, "the pictures", where)
    out = np.empty((len(rows), shape[0] * shape[1]), dtype=np.uint8)
    for i, encoded in enumerate(rows.cast_column(column, datasets.Image(decode=False))[column]):
        out[i] = picture(encoded, shape, where(i)).ravel()
    return torch.from_numpy(out)


def picture(
    encoded: Mapping[str, Any] | None,
    shape: tuple[int, int] | None,
    where: str,
    mode: str = "L",
    resize: tuple[int, int] | None = None,
) -> np.ndarray:
    """The pixels of an encoded picture ``{"bytes": ..., "path": ...}``: (height, width) uint8, gray, or (height, width,
    3) with ``mode="RGB"``; scaled to ``resize`` (height, width) if given.

    Raises:
        UserError: it is missing, damaged, too large or not of ``shape`` (which is looked at before it is decoded).
    """
    from PIL import Image, UnidentifiedImageError

    raw, path = (encoded or {}).get("bytes"), (encoded or {}).get("path")
    if raw is None and path is None:
        raise UserError(f"the picture of {where} is missing; give it or leave the sample out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw) if raw is not None else path) as image:
                found = image.height, image.width
                if shape is not None and found != shape:
                    sizes = f"{found[1]} x {found[0]} pixels instead of {shape[1]} x {shape[0]}"
                    raise UserError(f"the picture of {where} has {sizes}; this is another data set")
                pixels = image.convert(mode)
                return np.asarray(pixels.resize(resize[::-1]) if resize else pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"the picture of {where} claims to be too large to open ({error})") from error
    except UnidentifiedImageError as error:
        raise UserError(f"the picture of {where} is damaged or no picture: its format is not known") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"the picture of {where} cannot be read ({error}); it is damaged or no picture") from error
