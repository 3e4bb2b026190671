"""Any data set of the Hugging Face hub, or parquet files of its layout, by the names of its columns; no code needed.

What ``input`` holds decides how it is read:

=======================  =====================================================================================
pictures                 pixel by pixel, row by row: x (B, height * width, 1), or 3 with ``colour: rgb``
texts                    tokens by ``level``, with ``<eos>`` at the end (:mod:`src.dataloaders.text`)
lists of numbers         x (B, L, 1); lists of lists (B, L, d)
several number columns   every row is a sequence, its columns are the steps
=======================  =====================================================================================

The hub's splits are kept; what is missing of validation and test is drawn from the training rows. Scripts that a
repository may hold are never run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sdn.errors import UserError, reason
from src.dataloaders import gate
from src.dataloaders.base import load_hub
from src.dataloaders.family import Family, Samples
from src.dataloaders.files import files_below, stamp
from src.dataloaders.images import picture
from src.dataloaders.splits import split_named
from src.dataloaders.text import encoded
from src.dataloaders.vocab import LEVELS
from src.paths import data_root, resolve

COLOURS = ("gray", "rgb")
_HUB_SPLITS = {"train": 0, "validation": 1, "test": 2}


class Hub(Family):
    """Sequences of numbers (B, L, d) or of token ids (B, L), padded with ``lengths`` where they have many lengths."""

    _name_ = "hub"

    def __init__(
        self,
        path: str,
        input: str | Sequence[str],
        target: str = "label",
        config: str | None = None,
        size: Sequence[int] | None = None,
        colour: str = "gray",
        level: str = "char",
        min_freq: int = 1,
        targets: str = "classes",
        per_step: bool = False,
        l_max: int | None = None,
        normalise: str = "standard",
        val_split: float = 0.1,
        test_split: float = 0.2,
        seed: int = 42,
    ) -> None:
        """
        Args:
            path: a folder of parquet files or one of them, or a name of the hub (``ylecun/mnist``), which is looked
                for in ``$DATA_PATH/mnist`` before it is downloaded.
            input, target: columns; ``input`` may be several of numbers.
            config: which of several data sets of a repository.
            size: height and width that pictures are scaled to; null: all have one size.
            colour: of pictures, ``gray`` or ``rgb``.
            level, min_freq: of texts, as :class:`src.dataloaders.text.Text`'s.

        The others are :class:`Family`'s.
        """
        super().__init__(path, targets, per_step, l_max, normalise, val_split, test_split, seed)
        gate.one_of(COLOURS, colour=colour)
        gate.one_of(LEVELS, level=level)
        gate.at_least(1, min_freq=min_freq)
        if size is not None:
            if isinstance(size, (int, str)) or len(size) != 2:
                raise UserError(f"dataset.size is a height and a width, such as [32,32], not {size!r}")
            gate.at_least(1, size=size[0])
            gate.at_least(1, size=size[1])
        self.input = input if isinstance(input, str) else list(input)
        self.target, self.config, self.level, self.min_freq = target, config, level, min_freq
        self.size, self.colour = None if size is None else tuple(size), colour

    def settings(self) -> dict[str, Any]:
        names = ("input", "target", "config", "level", "min_freq", "size", "colour")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Any]:
        return super().facts() | ({"level": self.level} if self.n_tokens is not None else {})

    @property
    def path(self) -> Path:
        """Where the files lie, or would lie."""
        given = resolve(self._data_dir)
        return given if given.exists() else data_root() / Path(self._data_dir).name

    def source(self) -> Any:
        path = self.path
        if not path.exists():
            return [self._data_dir]
        return stamp(path, files_below(path, (".parquet",)) if path.is_dir() else [path])

    def read(self) -> Samples:
        splits = self._open()
        inputs = [self.input] if isinstance(self.input, str) else self.input
        x, y, split, places = [], [], [], []
        kind, names = None, None
        for name, rows in splits.items():
            where = gate.row_of(name, self._data_dir)
            for column in (*inputs, self.target):
                gate.column(rows.column_names, column, "dataset.input" if column in inputs else "dataset.target", where)
            kind = kind or self._kind(rows)
            x += self._inputs(rows, kind, inputs, where)
            labels, names = self._labels(rows, where)
            y += labels
            split += [_HUB_SPLITS[name]] * len(rows)
            places.append((len(split), where, len(rows)))

        def where_of(i: int) -> str:
            end, of, n = next(place for place in places if i < place[0])
            return of(i - end + n)

        given = split if len(splits) > 1 else None
        if kind == "text":
            samples = encoded(x, y, where_of, given, self.level, self.cut_to, self.min_freq)
            samples.class_names = names
            return samples
        return Samples(x, y, where_of, given, class_names=names)

    def _open(self) -> Mapping[str, Any]:
        path = self.path
        if not path.exists():
            return _known_splits(
                load_hub(self._data_dir, [path], self._data_dir, "its size is told there", self.config)
            )
        files = files_below(path, (".parquet",)) if path.is_dir() else [path]
        if self.config is not None and path.is_dir():
            files = [file for file in files if self.config in file.relative_to(path).parts] or files
        of = {file: split_named(file.stem.partition("-")[0].partition("_")[0]) for file in files}
        if None in of.values():
            of = dict.fromkeys(files, 0)
        grouped = {name: [str(file) for file in files if of[file] == n] for name, n in _HUB_SPLITS.items()}
        import datasets

        datasets.disable_progress_bars()  # of a conversion that takes a second
        try:
            return datasets.load_dataset("parquet", data_files={name: some for name, some in grouped.items() if some})
        except Exception as error:
            raise UserError(f"cannot read the parquet files of {path}: {reason(error)}") from error

    def _kind(self, rows: Any) -> str:
        """``pictures``, ``text``, ``numbers`` (lists) or ``columns``."""
        if not isinstance(self.input, str):
            return "columns"
        feature = rows.features[self.input]
        if type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and {"bytes", "path"} <= set(feature)):
            return "pictures"
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            return "text"
        if type(feature).__name__ in ("Sequence", "List", "LargeList", "Array2D", "list"):
            return "numbers"
        raise UserError(
            f"the column {self.input} of {self._data_dir} holds {feature}; dataset.input is a column of pictures, "
            "texts or lists of numbers, or several columns of numbers"
        )

    def _inputs(self, rows: Any, kind: str, inputs: list[str], where: gate.Where) -> list[Any]:
        if kind == "text":
            return list(gate.hub_texts(rows, inputs[0], where))
        if kind == "columns":
            values = np.array([rows[name] for name in inputs], dtype=object).T
            return list(gate.finite(values, where)[:, :, None])
        if kind == "pictures":
            import datasets

            mode, shape, found = {"gray": "L", "rgb": "RGB"}[self.colour], None, []
            column = rows.cast_column(inputs[0], datasets.Image(decode=False))
            for i, row in enumerate(tqdm(column, desc=str(where), unit="picture", disable=None)):
                pixels = picture(row[inputs[0]], shape, where(i), mode, self.size)
                shape = pixels.shape[:2] if self.size is None else None
                found.append(pixels.reshape(-1, 1 if mode == "L" else 3))
            return found
        return [self._list(value, where(i)) for i, value in enumerate(rows[inputs[0]])]

    def _list(self, value: Any, where: str) -> np.ndarray:
        if value is None:
            raise UserError(f"{self.input} of {where} is missing; give it or leave the sample out")
        try:
            return np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.input} of {where} is no list of numbers: {error}") from error

    def _labels(self, rows: Any, where: gate.Where) -> tuple[list[Any], Sequence[str] | None]:
        """The targets of all rows, those of a column that has names of classes by name, and these names."""
        values, feature = list(rows[self.target]), rows.features[self.target]
        names = getattr(feature, "names", None)
        if names is None or self.targets != "classes" or self.per_step:
            return values, None
        return [names[int(label)] for label in gate.class_ids(values, len(names), where)], names


def _known_splits(found: Mapping[str, Any]) -> dict[str, Any]:
    """The hub's splits by the three names that are known here; a repository with one split is all training."""
    numbers = {name: split_named(name) for name in found}
    by_number = {number: found[name] for name, number in numbers.items() if number is not None}
    if 0 not in by_number:
        if len(found) != 1:
            raise UserError(f"this data set has the splits {', '.join(found)}, and none to train on")
        return {"train": next(iter(found.values()))}
    return {name: by_number[number] for name, number in _HUB_SPLITS.items() if number in by_number}
