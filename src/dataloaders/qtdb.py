"""QTDB: electrocardiograms with a label a step, made from PhysioNet's QT Database."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sdn.errors import UserError

from .base import SequenceData, TensorSet, missing, random_split

SHA256 = {
    "QTDB_train.mat": "72d1a10c96f1540880447e07256835d66da419c0b34f3dff495731a7928c5bc7",
    "QTDB_test.mat": "916f11e21679a5b61988305bbb7cd1e6df8b34f1ed4a157a7a4e295d400ef232",
}
STEPS, CHANNELS = 1301, 4
UNLABELLED = ("first", "ignore")


class QTDB(SequenceData):
    """x (B, 1300, 4): two leads, each as events up and down, -1, 0 or 1; y (B, 1300): the wave at every step.

    618 records for training, of which ``val_size`` are drawn for validation by ``seed``, and 141 for testing. The last
    step of every record, which holds -1 in the published files, is dropped.

    Args:
        unlabelled: what the steps (8 %) are that carry no wave in the files: "first", class 0, which the published
            figures count (the largest of six zeros is the first), or "ignore", steps that neither train nor count.
    """

    _name_ = "qtdb"
    d_input, d_output, l_max = CHANNELS, 6, STEPS - 1
    class_names: ClassVar[tuple[str, ...]] = ("P", "PQ", "QR", "RS", "ST", "TP")

    def __init__(
        self, data_dir: str | None = None, val_size: int = 61, unlabelled: str = "first", seed: int = 42
    ) -> None:
        super().__init__(data_dir, seed)
        if unlabelled not in UNLABELLED:
            raise UserError(f"dataset.unlabelled must be one of {', '.join(UNLABELLED)}, not {unlabelled!r}")
        self.val_size, self.unlabelled = val_size, unlabelled

    def setup(self) -> None:
        x, y = self._read("train")
        if not 0 < self.val_size < len(x):
            raise UserError(f"dataset.val_size must be between 1 and {len(x) - 1}, not {self.val_size}")
        train, val = random_split(len(x), [len(x) - self.val_size, self.val_size], self.seed)
        self.train, self.val = (TensorSet(x[part], y[part], _floats) for part in (train, val))
        self.test = TensorSet(*self._read("test"), _floats)

    def verify(self) -> None:
        """Compare both files with the checksums of the published ones."""
        for name, expected in SHA256.items():
            path = self.data_dir / name
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise UserError(f"{path} is not the published file (its SHA-256 differs); get it again")

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        """Events (n, 1300, 4) int8 and classes (n, 1300) of a split."""
        path = self.data_dir / f"QTDB_{split}.mat"
        if not path.is_file():
            raise missing(
                path.name,
                self.data_dir,
                "get it from the folder experiments/ecg/data of https://github.com/AdaptiveAILab/brf-neurons "
                "and set DATA_PATH or dataset.data_dir",
            )
        events, one_hot = _load(path)
        y = torch.from_numpy(one_hot.argmax(-1))
        if self.unlabelled == "ignore":
            y[torch.from_numpy(one_hot.sum(-1) == 0)] = -1
        return torch.from_numpy(events.astype(np.int8))[:, :-1].contiguous(), y[:, :-1].contiguous()


def _floats(x: Tensor) -> Tensor:
    return x.float()


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``x`` (n, 1301, 4) and one-hot ``y`` (n, 1301, 6) of a MATLAB file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=("x", "y"))
    except Exception as error:  # scipy has no one kind of error for a damaged file
        raise UserError(f"cannot read {path}: {type(error).__name__}: {error}; get it again") from error
    x, y = found.get("x"), found.get("y")
    shapes = [getattr(part, "shape", ())[1:] for part in (x, y)]
    if shapes != [(STEPS, CHANNELS), (STEPS, QTDB.d_output)]:
        raise UserError(
            f"{path} must hold x (n, {STEPS}, {CHANNELS}) and y (n, {STEPS}, {QTDB.d_output}); get it again"
        )
    if len(x) != len(y) or not np.isin(x, (-1, 0, 1)).all() or not np.isin(y, (0, 1)).all() or y.sum(-1).max() > 1:
        raise UserError(f"{path} holds other values than events -1, 0, 1 and one-hot waves; get it again")
    return x, y
