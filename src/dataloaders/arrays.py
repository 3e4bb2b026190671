"""Arrays of yours: sequences and targets in .npz, .safetensors or a folder of .npy files, no code needed.

The names in the file say what an array is:

==================  ==============================================================================================
``x``               (n, L, d) or (n, L) numbers, n sequences
``y``               (n,) classes or numbers, (n, k) numbers; with targets a step (n, L) or (n, L, k)
``lengths``         (n,), for sequences of many lengths: x (and y a step) is padded to (n, L, d), or holds the
                    sequences end to end, (sum of lengths, d)
``x0``, ``x1``, ..  instead of x: sequence i by itself, (L_i, d) or (L_i,); a target a step likewise ``y0``, ``y1``, ...
``split``           (n,) train, val or test as words or 0, 1, 2; without it the splits are drawn
==================  ==============================================================================================

Or each split has arrays of its own: ``x_train``, ``y_train``, ``lengths_train``, ``x_val``, ..., ``x_test``, ...
Nothing is unpickled: NumPy's arrays of objects are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdn.errors import UserError
from sdn.named import suggestion
from src.dataloaders import gate
from src.dataloaders.family import Family, Samples
from src.dataloaders.splits import SPLITS, split_named

_PARTS = ("x", "y", "lengths", "split")


class Arrays(Family):
    """x (B, L, d) or, of many lengths, padded to the longest of the batch with ``lengths``."""

    _name_ = "arrays"

    def __init__(
        self,
        path: str,
        targets: str = "classes",
        per_step: bool = False,
        tokens: bool = False,
        l_max: int | None = None,
        normalise: str = "standard",
        val_split: float = 0.1,
        test_split: float = 0.2,
        seed: int = 42,
    ) -> None:
        """``tokens``: x are token ids, for encoder=embedding. The others are :class:`Family`'s."""
        super().__init__(path, targets, per_step, l_max, normalise, val_split, test_split, seed)
        self.tokens = bool(tokens)

    def settings(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    def read(self) -> Samples:
        arrays = load(self.path)
        parts = sorted({part for name in arrays if (part := _part(name)) is not None})
        if not parts:
            found = [self._sequences(arrays, "")]
            split = self._split(arrays.get("split"), len(found[0][0]))
        else:
            found = [self._sequences(arrays, f"_{part}") for part in parts]
            split = [split_named(part) for part, (x, _) in zip(parts, found, strict=True) for _ in x]
            if 0 not in split:
                raise UserError(f"{self.path} has arrays for {', '.join(parts)} but none for train")
        x = [row for rows, _ in found for row in rows]
        y = [answer for _, answers in found for answer in answers]
        tokens = None
        if self.tokens:
            tokens = self._check_ids(x)
        return Samples(x, y, gate.row_of(self.path.name), split, tokens)

    def _sequences(self, arrays: Mapping[str, np.ndarray], end: str) -> tuple[list[np.ndarray], list[Any]]:
        """Sequences and targets of the arrays whose names end in ``end`` ("" or "_train")."""
        lengths = arrays.get(f"lengths{end}")
        x = self._rows(arrays, "x", end, lengths)
        y = self._rows(arrays, "y", end, lengths if self.per_step else None)
        if len(x) != len(y):
            raise UserError(f"{self.path} has {len(x)} sequences{_of(end)} but {len(y)} targets")
        return x, y

    def _rows(self, arrays: Mapping[str, np.ndarray], name: str, end: str, lengths: np.ndarray | None) -> list[Any]:
        whole = arrays.get(name + end)
        if whole is None:
            numbered = {int(match[1]): key for key in arrays if (match := re.fullmatch(rf"{name}_?(\d+)", key))}
            if numbered and not end:
                if sorted(numbered) != list(range(len(numbered))):
                    raise UserError(f"the arrays {name}0, {name}1, ... of {self.path} leave out a number")
                return [arrays[numbered[i]] for i in range(len(numbered))]
            raise UserError(f"{self.path} has no array {name + end!r}{suggestion(name + end, arrays)}")
        if whole.ndim == 0 or (name == "x" and whole.ndim not in (1, 2, 3)):
            raise UserError(f"{name + end} in {self.path} has shape {whole.shape}; see src/dataloaders/arrays.py")
        if lengths is None:
            if name == "x" and whole.ndim == 1:
                raise UserError(f"{name + end} in {self.path} is one sequence; give (n, L, d), or lengths beside it")
            return list(whole)
        return self._cut_by(whole, name + end, lengths)

    def _cut_by(self, whole: np.ndarray, name: str, lengths: np.ndarray) -> list[np.ndarray]:
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
            raise UserError(f"lengths in {self.path} are whole numbers from 1 on, one a sequence")
        if len(whole) == len(lengths) and whole.ndim >= 2:
            if lengths.max() > whole.shape[1]:
                raise UserError(f"a sequence of {name} in {self.path} is shorter than its length {lengths.max()}")
            return [row[:length] for row, length in zip(whole, lengths.tolist(), strict=True)]
        if len(whole) != lengths.sum():
            raise UserError(
                f"{name} in {self.path} has {len(whole)} rows, neither one a sequence ({len(lengths)}) nor one a step "
                f"({lengths.sum()})"
            )
        return np.split(whole, np.cumsum(lengths)[:-1])

    def _split(self, given: np.ndarray | None, n: int) -> list[int] | None:
        if given is None:
            return None
        if given.shape != (n,):
            raise UserError(f"split in {self.path} has shape {given.shape}; give one word for each of {n} sequences")
        words = given.tolist()
        numbers = [word if word in (0, 1, 2) else split_named(word) for word in words]
        if None in numbers:
            odd = words[numbers.index(None)]
            raise UserError(f"split in {self.path} holds {odd!r}; it is {', '.join(SPLITS)}, or 0, 1, 2")
        return numbers

    def _check_ids(self, x: list[np.ndarray]) -> list[str]:
        if any(row.dtype.kind not in "iu" or row.ndim != 1 for row in x):
            raise UserError(
                f"token ids are whole numbers, x (n, L) in {self.path}; set dataset.tokens=false for numbers"
            )
        low, high = min(int(row.min(initial=0)) for row in x), max(int(row.max(initial=0)) for row in x)
        if low < 0 or high >= 1 << 24:
            raise UserError(f"token ids in {self.path} lie in {low} .. {high}; they count from 0")
        return [str(i) for i in range(high + 1)]


def _of(end: str) -> str:
    return f" of {end[1:]}" if end else ""


def _part(name: str) -> str | None:
    """``train`` of ``x_train``, None of a name without a split."""
    head, _, tail = name.rpartition("_")
    return tail if head in _PARTS and split_named(tail) is not None else None


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz, a .safetensors or of the .npy files of a folder, by name.

    Raises:
        UserError: another kind of file, a damaged one, or arrays of objects.
    """
    try:
        if path.is_dir():
            files = sorted(path.glob("*.npy"))
            if not files:
                raise UserError(
                    f"{path} has no .npy files; give a folder with x.npy and y.npy, a .npz or a .safetensors"
                )
            return {file.stem: np.load(file, allow_pickle=False) for file in files}
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return {name: tensor.numpy() for name, tensor in load_file(path).items()}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except ValueError as error:
        if "Object arrays" in str(error):
            raise UserError(
                f"{path} holds an array of objects, which would have to be unpickled; store sequences of many lengths "
                "end to end as x (T, d) with lengths (n,), or as x0, x1, ..."
            ) from error
        raise UserError(f"{path} cannot be read ({error}); write it again") from error
    except UserError:
        raise
    except Exception as error:  # zip, safetensors and NumPy each have kinds of their own for a damaged file
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); write it again") from error
    if path.suffix == ".npy":
        raise UserError(f"{path} is one array; put x.npy and y.npy into a folder and give the folder")
    raise UserError(f"{path} is no .npz, .safetensors or folder of .npy files")
