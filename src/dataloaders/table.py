"""Tables of yours: CSV or parquet, columns by name, no code needed. What a sequence is follows from what is given:

===========================  ====================================================================================
a folder                     every file is a sequence, its rows are the steps
one file and ``group``       rows with the same value in that column are a sequence (likewise of all files of a folder)
one file without ``group``   every row is a sequence of one channel, its columns are the steps
===========================  ====================================================================================

``target`` names the column of the classes or numbers (constant within a sequence unless there is one a step), several
columns for several numbers; without it the folder that a file lies in is its class. ``split`` names a column of train,
val and test; or the files lie in folders of these names; else the splits are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from sdn.errors import UserError, reason
from src.dataloaders import gate
from src.dataloaders.family import Family, Samples
from src.dataloaders.files import files_below
from src.dataloaders.splits import SPLITS, split_named

ENDINGS = (".csv", ".tsv", ".parquet")


class Table(Family):
    """x (B, L, d), d the number of ``columns``; padded with ``lengths`` where sequences have many lengths."""

    _name_ = "table"

    def __init__(
        self,
        path: str,
        columns: Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        group: str | None = None,
        order: str | None = None,
        split: str | None = None,
        separator: str | None = None,
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
            columns: the inputs; null for every column that has no other part.
            target, group, split: columns as the head of the module says.
            order: column that the steps of a sequence are sorted by; null for the order of the rows.
            separator: between the values of a CSV line; null for a comma, in .tsv a tab.

        The others are :class:`Family`'s.
        """
        super().__init__(path, targets, per_step, l_max, normalise, val_split, test_split, seed)
        self.columns = None if columns is None else [columns] if isinstance(columns, str) else list(columns)
        self.target = [target] if isinstance(target, str) else list(target or [])
        self.group, self.order, self.split, self.separator = group, order, split, separator
        if len(self.target) > 1 and targets != "numbers":
            raise UserError("several columns of dataset.target are several numbers; choose task=regression")
        if per_step and not self.target:
            raise UserError("targets a step are a column of the table; name it with dataset.target")

    def settings(self) -> dict[str, Any]:
        names = ("columns", "target", "group", "order", "split", "separator")
        return {name: getattr(self, name) for name in names}

    def sources(self) -> list[Path]:
        path = self.path
        return files_below(path, ENDINGS) if path.is_dir() else [path]

    def read(self) -> Samples:
        files, root = self.sources(), self.path
        read = tqdm(files, desc=root.name, unit="file", disable=None)
        tables = [(file, read_table(file, self.separator)) for file in read]
        if self.group is not None:
            pieces = [piece for file, table in tables for piece in self._groups(file, table)]
        elif root.is_dir():
            pieces = [(str(file.relative_to(root)), file, table) for file, table in tables]
        else:
            return self._rows_as_sequences(*tables[0])
        columns = self._inputs(pieces[0][2], pieces[0][1])
        x = [self._values(table, columns, file) for _, file, table in pieces]
        y = [self._target(name, file, table) for name, file, table in pieces]
        return Samples(x, y, lambda i: pieces[i][0], self._splits(pieces))

    def _groups(self, file: Path, table: pd.DataFrame) -> list[tuple[str, Path, pd.DataFrame]]:
        gate.column(list(table.columns), self.group, "dataset.group", file)
        if table[self.group].isna().any():
            raise UserError(f"{file}, row {int(table[self.group].isna().argmax())}: {self.group} is empty")
        parts = table.groupby(self.group, sort=False)
        return [(f"{self.group} {key} of {file.name}", file, part) for key, part in parts]

    def _rows_as_sequences(self, file: Path, table: pd.DataFrame) -> Samples:
        if not self.target:
            raise UserError(f"dataset.target names the column of {file} that holds the targets")
        if self.per_step:
            raise UserError(f"every row of {file} is a sequence here; for a target a step name dataset.group")
        columns = self._inputs(table, file)
        x = self._values(table, columns, file)
        targets = self._columns(table, self.target, "dataset.target", file).to_numpy()
        y = targets[:, 0] if len(self.target) == 1 else targets
        split = None if self.split is None else [self._part(value, file) for value in self._words(table, file)]
        return Samples(list(x[:, :, None]), list(y), gate.row_of(file.name), split)

    def _inputs(self, table: pd.DataFrame, file: Path) -> list[str]:
        others = {*self.target, self.group, self.order, self.split}
        columns = self.columns or [name for name in table.columns if name not in others]
        if not columns:
            raise UserError(f"{file} has no column left for the inputs; name them with dataset.columns")
        return columns

    def _values(self, table: pd.DataFrame, columns: list[str], file: Path) -> np.ndarray:
        if self.order is not None:
            gate.column(list(table.columns), self.order, "dataset.order", file)
            table = table.sort_values(self.order, kind="stable")
        chosen = self._columns(table, columns, "dataset.columns", file)
        for name in columns:
            if not pd.api.types.is_numeric_dtype(chosen[name]):
                odd = pd.to_numeric(chosen[name], errors="coerce").isna().to_numpy().argmax()
                raise UserError(
                    f"{file}, row {odd}: {name} is {chosen[name].iloc[odd]!r}, no number; leave the column out of "
                    "dataset.columns or mend it"
                )
        return chosen.to_numpy(np.float64)

    def _target(self, name: str, file: Path, table: pd.DataFrame) -> Any:
        if not self.target:
            return file.parent.name
        if self.order is not None:
            table = table.sort_values(self.order, kind="stable")
        values = self._columns(table, self.target, "dataset.target", file).to_numpy()
        if self.per_step:
            return values[:, 0] if len(self.target) == 1 else values
        if any(len(pd.unique(column)) > 1 for column in values.T):
            raise UserError(
                f"{', '.join(self.target)} changes within {name}; choose task=per_step (or regression) with "
                "decoder=per_step for a target a step"
            )
        if not len(values):
            raise UserError(f"{name} has no rows; leave it out")
        return values[0, 0] if len(self.target) == 1 else values[0]

    def _columns(self, table: pd.DataFrame, names: list[str], what: str, file: Path) -> pd.DataFrame:
        for name in names:
            gate.column(list(table.columns), name, what, file)
        return table[names]

    def _splits(self, pieces: Sequence[tuple[str, Path, pd.DataFrame]]) -> list[int] | None:
        if self.split is not None:
            found = [{self._part(value, file) for value in self._words(table, file)} for _, file, table in pieces]
            if mixed := next((piece[0] for piece, parts in zip(pieces, found, strict=True) if len(parts) != 1), None):
                raise UserError(f"{self.split} changes within {mixed}; a sequence belongs to one split")
            return [parts.pop() for parts in found]
        return folder_splits([file for _, file, _ in pieces], self.path)

    def _words(self, table: pd.DataFrame, file: Path) -> list[Any]:
        return table[gate.column(list(table.columns), self.split, "dataset.split", file)].tolist()

    def _part(self, value: Any, file: Path) -> int:
        part = split_named(value)
        if part is None:
            raise UserError(f"{file}: {self.split} is {value!r}; it is one of {', '.join(SPLITS)}")
        return part


def folder_splits(files: Sequence[Path], root: Path) -> list[int] | None:
    """The split of each file by the first folder below ``root``, if every file lies in one named for a split."""
    tops = [file.relative_to(root).parts[0] if file != root else "" for file in files]
    parts = [split_named(top) for top in tops]
    if None not in parts:
        return parts
    if any(part is not None for part in parts):
        odd = files[parts.index(None)]
        raise UserError(f"{root} has folders for splits, but {odd} lies in none of them; put it into one")
    return None


def read_table(file: Path, separator: str | None = None) -> pd.DataFrame:
    """A CSV, TSV or parquet file.

    Raises:
        UserError: it cannot be read, or a line has another number of values than the head.
    """
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            table = pd.read_csv(file, sep=separator or ("\t" if file.suffix == ".tsv" else ","))
    except Exception as error:  # pandas and pyarrow have many kinds
        raise UserError(f"{file} cannot be read as a table: {reason(error)}") from error
    table.columns = [str(name).strip() for name in table.columns]
    if not len(table):
        raise UserError(f"{file} has no rows")
    return table
