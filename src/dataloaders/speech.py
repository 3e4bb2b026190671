"""Speech Commands v0.02, all 35 words: one second of raw sound at 16 kHz, sample by sample.

Read from the unpacked release or from its tarball and packed once as int16 (3.4 GB, :mod:`src.dataloaders.shards`).
A model trained at 16 kHz is also evaluated at 8 kHz without training there: every second sample, with ``rate`` 2 so
that the model doubles its step size (views ``val/2`` and ``test/2``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders.base import Batch, Collate, SequenceData
from src.dataloaders.cache import cached_tensors, fingerprint
from src.dataloaders.shards import Layout, Shards, ShardSet, build, complete
from src.dataloaders.speech_release import CLASSES, LENGTH, columns_of, find
from src.paths import cache_root, data_root, resolve

_SPLITS = ("train", "val", "test")
_PER_SHARD = 2048


class SpeechCommands(SequenceData):
    """Waveforms (B, 16000, 1), short ones padded with zeros at the end, in the official split 84,843 / 9,981 / 11,005.

    ``normalisation`` is ``scale`` or ``released``:

    - ``scale``: x / sigma with one sigma, the root mean square over the training set. Silence stays 0 and the input
      has unit size.
    - ``released``: what the released pipeline computes. There the sound in [-1, 1] is divided by 2^15 once more and
      then standardised at each time step t with training mean and deviation plus 1e-5, which outweighs the
      deviation: about (x - mu_t) / (sigma_t + 0.33), a fifth of unit size.
    """

    _name_ = "sc"
    d_output = len(CLASSES)
    class_names = CLASSES
    sampling_step = 1 / 16_000
    l_max = LENGTH

    def __init__(
        self,
        normalisation: str = "scale",
        eval_rates: Sequence[int] = (1, 2),
        workers: int | None = None,
        data_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """
        Args:
            eval_rates: every how-manieth sample is evaluated; the first is the one checkpoints are chosen by.
            workers: threads that read the sound files; null for one a processor.
        """
        super().__init__(data_dir, seed)
        if normalisation not in ("scale", "released"):
            raise UserError(f"dataset.normalisation is scale or released, not {normalisation!r}")
        if not eval_rates or any(rate < 1 for rate in eval_rates) or len(set(eval_rates)) < len(eval_rates):
            raise UserError(f"dataset.eval_rates are different whole numbers from 1 on, not {list(eval_rates)}")
        self.normalisation, self.eval_rates = normalisation, tuple(eval_rates)
        self.workers = workers or os.cpu_count() or 1

    @property
    def data_dir(self) -> Path:
        """Folder of the release: ``dataset.data_dir`` or ``$DATA_PATH/SpeechCommands``."""
        return resolve(self._data_dir) if self._data_dir else data_root() / "SpeechCommands"

    def prepare(self) -> None:
        """Pack the sound and measure the training set; what an interrupted run finished is kept."""
        self._statistics(Shards(self._build()))

    def setup(self) -> None:
        """Open the packed sound."""
        shards = Shards(self._build())
        self._shift, self._scale = self._normalise_by(self._statistics(shards))
        if self.normalisation == "scale":
            self.input_scale = {"shift": [0.0], "scale": [float(self._scale)]}
        split, label, path_order = (shards.columns[name] for name in ("split", "label", "path_order"))
        for number, name in enumerate(_SPLITS):
            rows = np.flatnonzero(split == number)
            rows = rows[np.argsort(path_order[rows])]
            y = torch.from_numpy(label[rows])
            setattr(self, name, ShardSet(shards, torch.from_numpy(rows), y, self._to_sequence))

    def views(self, split: str) -> dict[str, tuple[Dataset, Collate]]:
        """``split`` at every rate of ``eval_rates``: ``val``, ``val/2``, ..."""
        return {
            split if rate == 1 else f"{split}/{rate}": (getattr(self, split), partial(_collate_at, rate))
            for rate in self.eval_rates
        }

    def _to_sequence(self, sound: Tensor) -> Tensor:
        """(B, 16000) int16 -> (B, 16000, 1) float."""
        return ((sound.float() - self._shift) * self._scale).unsqueeze(-1)

    def _normalise_by(self, statistics: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Shift and factor for int16 samples: scalars for ``scale``, one a time step for ``released``."""
        if self.normalisation == "scale":
            return torch.zeros(()), 1 / statistics["rms"].clamp(min=1.0)
        return statistics["mean"], 1 / (statistics["std"] + 1e-5 * 2.0**30)

    def _statistics(self, shards: Shards) -> dict[str, Tensor]:
        """Of the training set in units of int16: ``mean`` and ``std`` at each step (16000,), ``rms`` ()."""

        def measure() -> dict[str, Tensor]:
            rows = np.flatnonzero(shards.columns["split"] == 0)
            total, squares = np.zeros(LENGTH), np.zeros(LENGTH)
            for some in tqdm(np.array_split(rows, len(rows) // 512 + 1), desc="statistics", disable=None):
                sound = shards.rows(some).astype(np.float64)
                total += sound.sum(axis=0)
                squares += np.square(sound).sum(axis=0)
            mean = total / len(rows)
            variance = (squares - len(rows) * mean**2) / max(len(rows) - 1, 1)
            values = {"mean": mean, "std": np.sqrt(variance.clip(0)), "rms": np.sqrt(squares.mean() / len(rows))}
            return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}

        return cached_tensors("sc-statistics", {"version": 1, "of": shards.folder.name}, measure, derived=True)

    def _build(self) -> Path:
        """The folder of the packed sound, built if need be."""
        stamp, open_source, any_order = find(self.data_dir)
        settings = {"version": 1, "source": stamp}
        folder = cache_root() / f"sc-{fingerprint(settings)}"
        if not complete(folder):
            source = open_source()
            columns = columns_of(source.clips, source.lists, self.data_dir)
            layout = Layout(len(source.clips), (LENGTH,), "int16", _PER_SHARD)

            def make(start: int, stop: int) -> np.ndarray:
                return source.read(source.clips[start:stop])

            workers = self.workers if any_order else 1
            build(folder, layout, make, lambda: columns, settings, workers, "Speech Commands")
        return folder


def _collate_at(rate: int, batch: Any) -> Batch:
    """Every ``rate``-th sample of x (B, L, 1), and ``rate`` for the model to rescale its step by."""
    x, y = batch
    return x[:, ::rate], y, {"rate": float(rate)} if rate != 1 else {}
