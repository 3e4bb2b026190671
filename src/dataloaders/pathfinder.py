"""Pathfinder and Path-X (Long Range Arena): does a dashed path join the two dots? An image read pixel by pixel.

Read from LRA's images if they lie in the data folder, otherwise generated
(:mod:`src.dataloaders.pathfinder_generator`). Either way the images are packed into a few large files once
(:mod:`src.dataloaders.shards`): 0.2 GB at resolution 32, 3.3 GB at 128.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders import pathfinder_generator as generator
from src.dataloaders.base import SequenceData, missing, random_split
from src.dataloaders.cache import fingerprint, source_stamp
from src.dataloaders.shards import Layout, Shards, ShardSet, build
from src.paths import cache_root

log = logging.getLogger(__name__)

_PER_SHARD = 4096
_GENERATED = 200_000
_LEVELS = {14: "curv_contour_length_14", 9: "curv_contour_length_9", 6: "curv_baseline"}
_HOW = (
    "download lra_release.gz (7.7 GB, https://storage.googleapis.com/long-range-arena/lra_release.gz) and put its "
    "pathfinder32 or pathfinder128 folder there, or set dataset.source=generated to have the images made here"
)


class Pathfinder(SequenceData):
    """Images as sequences (B, resolution^2, 1) of grey values in [0, 1], row by row; class 1 if the dots are joined.

    200,000 images in a random split of 160,000 / 20,000 / 20,000.
    """

    _name_ = "pathfinder"
    d_output = 2
    class_names = ("apart", "joined")

    def __init__(
        self,
        resolution: int = 32,
        contour_length: int = 14,
        center: bool = False,
        law: str = "lra",
        val_split: float = 0.1,
        test_split: float = 0.1,
        source: str = "auto",
        n_samples: int | None = None,
        generator_seed: int = 0,
        workers: int | None = None,
        data_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """
        Args:
            resolution: 32 (Pathfinder), 64 or 128 (Path-X).
            contour_length: dashes of the path between the dots, 14 as published, or 9 or 6, LRA's easier levels.
            center: map the grey values to [-1, 1].
            law: of generated images: ``lra``, with the statistics of LRA's, or ``apart``, whose paths never cross; see
                :mod:`src.dataloaders.pathfinder_generator`.
            val_split, test_split: shares held out at random (``seed``).
            source: ``lra`` reads LRA's images, ``generated`` makes them, ``auto`` makes them if there are none.
            n_samples: how many images to generate or read; null for 200,000 generated ones or all of LRA's.
            generator_seed: of generated images.
            workers: threads that generate or read; null for one a processor. The result does not depend on it.
        """
        super().__init__(data_dir, seed)
        if source not in ("auto", "lra", "generated"):
            raise UserError(f"dataset.source is auto, lra or generated, not {source!r}")
        if min(val_split, test_split) < 0 or val_split + test_split >= 1:
            raise UserError("dataset.val_split and dataset.test_split are shares that leave something to train on")
        if n_samples is not None:
            gate.at_least(1, n_samples=n_samples)
        if contour_length not in _LEVELS:
            raise UserError(f"dataset.contour_length is one of {', '.join(map(str, _LEVELS))}, not {contour_length}")
        self.settings = generator.settings_for(resolution, contour_length, law)
        self.level, self.resolution, self.center, self.l_max = (
            _LEVELS[contour_length],
            resolution,
            center,
            resolution**2,
        )
        self.val_split, self.test_split = val_split, test_split
        self.source, self.n_samples, self.generator_seed = source, n_samples, generator_seed
        self.workers = workers or os.cpu_count() or 1

    def prepare(self) -> None:
        """Generate or pack the images; what an interrupted run finished is kept."""
        self._build()

    def setup(self) -> None:
        """Open the packed images and split."""
        shards = Shards(self._build())
        origin = "generated here" if "generator" in shards.settings else "of Long Range Arena"
        log.info("Pathfinder %d: %s images %s, in %s", self.resolution, f"{len(shards):,}", origin, shards.folder)
        y = torch.from_numpy(shards.columns["label"]).long()
        n = len(shards)
        n_val, n_test = int(self.val_split * n), int(self.test_split * n)
        parts = random_split(n, (n - n_val - n_test, n_val, n_test), self.seed)
        self.train, self.val, self.test = (ShardSet(shards, rows, y[rows], self._to_sequence) for rows in parts)

    def _to_sequence(self, pixels: Tensor) -> Tensor:
        """(B, resolution, resolution) uint8 -> (B, L, 1) float."""
        x = rearrange(pixels, "b row column -> b (row column) 1").float() / 255
        return 2 * x - 1 if self.center else x

    def _build(self) -> Path:
        folder = self.data_dir / f"pathfinder{self.resolution}" / self.level
        if self.source == "generated" or (self.source == "auto" and not folder.exists()):
            return self._build_generated()
        metadata = sorted((folder / "metadata").glob("*.npy"), key=_number)
        if not metadata:
            raise missing(f"LRA's Pathfinder images (metadata/*.npy, imgs/*/*.png) of {folder.name}", folder, _HOW)
        return self._build_lra(folder, metadata)

    def _build_generated(self) -> Path:
        n = _GENERATED if self.n_samples is None else self.n_samples
        settings = {"version": 2, "generator": asdict(self.settings), "seed": self.generator_seed, "n": n}

        def make(start: int, stop: int) -> np.ndarray:
            return generator.images(self.settings, self.generator_seed, start, stop)

        return self._pack(settings, n, make, lambda: generator.labels(self.generator_seed, 0, n))

    def _build_lra(self, folder: Path, metadata: list[Path]) -> Path:
        settings = {"version": 1, "lra": source_stamp(*metadata), "n": self.n_samples}
        images = [image for path in metadata for image in _read_metadata(folder, path)][: self.n_samples]

        def make(start: int, stop: int) -> np.ndarray:
            return np.stack([_read_image(image.path, self.resolution) for image in images[start:stop]])

        labels = np.array([image.label for image in images], np.uint8)
        return self._pack(settings, len(images), make, lambda: labels)

    def _pack(
        self,
        settings: dict[str, Any],
        n: int,
        make: Callable[[int, int], np.ndarray],
        labels: Callable[[], np.ndarray],
    ) -> Path:
        folder = cache_root() / f"pathfinder{self.resolution}-{fingerprint(settings)}"
        layout = Layout(n, (self.resolution, self.resolution), "uint8", _PER_SHARD)
        build(
            folder, layout, make, lambda: {"label": labels()}, settings, self.workers, f"Pathfinder {self.resolution}"
        )
        return folder


@dataclass(frozen=True)
class _Image:
    path: Path
    label: int


def _number(path: Path) -> int:
    if not path.stem.isdigit():
        raise UserError(f"{path}: LRA's metadata files are called 0.npy, 1.npy, ...; move this one away")
    return int(path.stem)


def _read_metadata(folder: Path, path: Path) -> list[_Image]:
    """The images of one metadata file: text in spite of its name, one image a line.

    Field 0 is the folder, 1 the file, 3 the label.
    """
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = line.split()
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            raise UserError(
                f"{path}, line {number}: expected folder, file, number and label (0 or 1); the file is damaged, "
                f"unpack it again or set dataset.source=generated"
            )
        images.append(_Image(folder / fields[0] / fields[1], int(fields[3])))
    return images


def _read_image(path: Path, resolution: int) -> np.ndarray:
    """(resolution, resolution) uint8 grey values."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as an image ({error}); unpack LRA's release again or set dataset.source=generated"
        ) from error
    if pixels.shape != (resolution, resolution):
        raise UserError(f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {resolution} x {resolution}")
    return pixels
