"""Sets of the UCR / UEA archive of time series: ``.ts`` files with official splits, read by aeon.

aeon's wheel carries ACSF1, ArrowHead, BasicMotions, GunPoint, ItalyPowerDemand, JapaneseVowels, OSULeaf and a few more;
any other set of https://timeseriesclassification.com is read from ``$DATA_PATH/ucr``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from sdn.errors import UserError, reason
from src.dataloaders import gate
from src.dataloaders.base import missing
from src.dataloaders.family import NORMALISE, Family, Samples
from src.paths import data_root, resolve

_FILES = {"TRAIN": 0, "TEST": 2}


class UCR(Family):
    """x (B, L, d), padded with ``lengths`` where the series of a set have many lengths; y the class, or with
    ``targets=numbers`` the number of a regression set.

    Validation samples are drawn from the training part, an equal share of each class; the test part is the official
    one.
    """

    _name_ = "ucr"

    def __init__(
        self,
        name: str,
        data_dir: str | None = None,
        targets: str = "classes",
        l_max: int | None = None,
        normalise: str = "standard",
        val_split: float = 0.2,
        seed: int = 42,
    ) -> None:
        """
        Args:
            name: of the set, as the archive spells it.
            data_dir: folder with ``NAME/NAME_TRAIN.ts`` and ``NAME_TEST.ts``; null: ``$DATA_PATH/ucr``, else aeon's.
            normalise: ``sample`` brings every channel of every series to mean 0 and deviation 1 by itself, which loses
                its level and size; ``standard`` each channel over the training samples; ``none``.
        """
        if not re.fullmatch(r"[A-Za-z0-9_\-]+", str(name)):
            raise UserError(f"dataset.name is the name of a set, such as ACSF1, not {name!r}")
        gate.one_of((*NORMALISE, "sample"), normalise=normalise)
        self.per_sample = normalise == "sample"
        shared = "none" if self.per_sample else normalise
        super().__init__(
            data_dir, targets=targets, l_max=l_max, normalise=shared, val_split=val_split, test_split=0.0, seed=seed
        )
        self.name = str(name)

    @property
    def path(self) -> Path:
        """The folder of this set's two files."""
        given = resolve(self._data_dir) if self._data_dir else data_root() / self._name_
        folders = [given / self.name, given]
        if not self._data_dir:
            folders.append(_aeon_folder() / self.name)
        for folder in folders:
            if all((folder / f"{self.name}_{part}.ts").is_file() for part in _FILES):
                return folder
        raise missing(
            f"{self.name}_TRAIN.ts and {self.name}_TEST.ts",
            folders[0],
            f"get them from https://timeseriesclassification.com/description.php?Dataset={self.name}{self._there_are()}",
        )

    def _there_are(self) -> str:
        if self._data_dir:
            return ""
        ends = [path.name.removesuffix("_TRAIN.ts") for path in _aeon_folder().glob("*/*_TRAIN.ts")]
        return f", or take one that comes with aeon: {', '.join(sorted(ends))}"

    def sources(self) -> list[Path]:
        """The two files."""
        return [self.path / f"{self.name}_{part}.ts" for part in _FILES]

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "per_sample": self.per_sample}

    def read(self) -> Samples:
        load = _reader()
        x: list[np.ndarray] = []
        y: list[Any] = []
        places: list[str] = []
        split: list[int] = []
        for file, part in zip(self.sources(), _FILES.values(), strict=True):
            try:
                series, answers, about = load(str(file), return_meta_data=True)
            except Exception as error:  # aeon has no one kind of error for a file it cannot read
                raise UserError(f"{file} cannot be read as a .ts file: {reason(error)}") from error
            if about["targetlabel"] != (self.targets == "numbers"):
                right = "task=regression" if about["targetlabel"] else "task=classification"
                raise UserError(f"the targets of {self.name} are of another kind; choose {right}")
            x += [self._row(row) for row in series]
            y += answers.tolist()
            places += [f"series {i} of {file.name}" for i in range(len(answers))]
            split += [part] * len(answers)
        return Samples(x, y, places.__getitem__, split)

    def _row(self, series: np.ndarray) -> np.ndarray:
        """(d, L) -> (L, d), by itself at mean 0 and deviation 1 if asked for."""
        row = np.asarray(series, np.float64).T
        if self.per_sample:
            deviation = row.std(0)
            row = (row - row.mean(0)) / np.where(deviation > 0, deviation, 1.0)
        return row


def _aeon_folder() -> Path:
    """Where aeon keeps the sets of its wheel."""
    import importlib.util

    found = importlib.util.find_spec("aeon")
    if found is None or found.origin is None:
        raise _no_aeon()
    return Path(found.origin).parent / "datasets" / "data"


def _reader() -> Any:
    try:
        from aeon.datasets import load_from_ts_file
    except ImportError as error:
        raise _no_aeon() from error
    return load_from_ts_file


def _no_aeon() -> UserError:
    return UserError("series of the UCR / UEA archive are read by aeon: pip install --no-deps -r requirements-ucr.txt")
