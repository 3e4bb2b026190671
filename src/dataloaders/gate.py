"""The gate of data: whatever is read passes here once, when it is prepared, and what cannot be is one sentence.

Functions take ``where(i)``, the place of value i for the sentence, such as :class:`row_of`. All raise
:class:`UserError`.
"""

from __future__ import annotations

import math
import numbers as abstract
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.errors import UserError
from sdn.named import suggestion

Where = Callable[[int], str]


class row_of:  # noqa: N801
    """``row_of("train", "data/mnist")(7)`` is "row 7 of train in data/mnist"; rows are counted from 0."""

    def __init__(self, what: object, folder: object = None) -> None:
        self.place = f"{what}" if folder is None else f"{what} in {folder}"

    def __call__(self, i: int) -> str:
        return f"row {i} of {self.place}"

    def __str__(self) -> str:
        return self.place


def at_least(least: int, **values: Any) -> None:
    """Whole numbers (or None) that may not be below ``least``, by the names of their ``dataset`` keys."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, abstract.Integral) or value < least:
            raise UserError(f"dataset.{name} is a whole number, {least} or more, not {value!r}")


def one_of(choices: Sequence[str], **values: Any) -> None:
    """Words of a fixed set, by the names of their ``dataset`` keys."""
    for name, value in values.items():
        if value not in choices:
            raise UserError(f"dataset.{name} is one of {', '.join(choices)}, not {value!r}")


def column(names: Sequence[str], name: str, what: str, file: object) -> str:
    """``name``, if it is among the columns ``names`` of ``file``."""
    if name not in names:
        raise UserError(f"{file} has no column {name!r} for {what}{suggestion(name, names)}")
    return name


def class_ids(values: Sequence[Any], n: int, where: Where) -> Tensor:
    """Classes 0 .. n - 1 as int64 (len(values),), from whole numbers."""
    ids = [_whole(value, where, i) for i, value in enumerate(_plain(values))]
    for i, label in enumerate(ids):
        if not 0 <= label < n:
            raise UserError(f"the label of {where(i)} is {label}, but the classes are 0 to {n - 1}")
    return torch.tensor(ids, dtype=torch.int64)


def classes(values: Sequence[Any], where: Where, known: Sequence[str] | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels of any kind, text or whole numbers, as ids (len(values),) of sorted classes, and what these are called.

    ``known``: the names there may be, in the order of their ids.
    """
    labels = [_label(value, where, i) for i, value in enumerate(_plain(values))]
    kinds = {isinstance(label, str) for label in labels}
    if len(kinds) > 1:
        odd = next(i for i, label in enumerate(labels) if isinstance(label, str) != isinstance(labels[0], str))
        raise UserError(
            f"labels are text or numbers: {labels[0]!r} is that of {where(0)}, {labels[odd]!r} of {where(odd)}"
        )
    names = tuple(str(label) for label in sorted(set(labels))) if known is None else tuple(known)
    ids = {name: i for i, name in enumerate(names)}
    for i, label in enumerate(labels):
        if str(label) not in ids:
            raise UserError(f"no class is called {label!r}, the label of {where(i)}{suggestion(str(label), names)}")
    if len(names) < 2:
        raise UserError(f"every label is {names[0] if names else 'missing'}; there is nothing to tell apart")
    return torch.tensor([ids[str(label)] for label in labels], dtype=torch.int64), names


def finite(x: np.ndarray, where: Where) -> np.ndarray:
    """Numbers (n, ...) without NaN and infinity, as float32 that holds them."""
    try:
        values = np.asarray(x, np.float64 if np.asarray(x).dtype == object else None)
    except (TypeError, ValueError):
        values = np.asarray(x, dtype=str)
    if values.dtype.kind not in "biuf":
        i, what = _first_text(values)
        raise UserError(f"{where(i)} holds {what!r} where a number belongs")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        i = int(np.argwhere(~np.isfinite(single))[0][0])
        odd = values[i].ravel()[~np.isfinite(single[i]).ravel()][0]
        what = "no number (NaN or empty)" if np.isnan(odd) else f"{odd:g}, too large for single precision"
        raise UserError(f"{where(i)} holds {what}; mend it or leave out what it is in")
    return single


def texts(values: Sequence[Any], where: Where) -> list[str]:
    """Texts, none of them null."""
    for i, value in enumerate(values):
        if not isinstance(value, str):
            what = "missing" if _missing(value) else f"{value!r}"
            raise UserError(f"the text of {where(i)} is {what}; give it or leave the sample out")
    return list(values)


def hub_texts(rows: Any, name: str, where: Where, block: int = 1000) -> Iterator[str]:
    """The texts of a column of a hub data set, some rows at a time."""
    for start in range(0, len(rows), block):
        values = rows[start : start + block][name]
        yield from texts(values, lambda i, start=start: where(start + i))


def _plain(values: Sequence[Any]) -> Sequence[Any]:
    return values.tolist() if isinstance(values, (np.ndarray, Tensor)) else values


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _whole(value: Any, where: Where, i: int) -> int:
    if _missing(value):
        raise UserError(f"the label of {where(i)} is missing; give it or leave the sample out")
    if not isinstance(value, (bool, abstract.Real)):
        raise UserError(f"the label of {where(i)} is {value!r}, but this data set's are whole numbers")
    if not float(value).is_integer():
        raise UserError(f"the label of {where(i)} is {value}, which is no class; whole numbers are")
    return int(value)


def _label(value: Any, where: Where, i: int) -> int | str:
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"the label of {where(i)} is empty; give it or leave the sample out")
        return value
    if not _missing(value) and isinstance(value, (bool, abstract.Real)) and not float(value).is_integer():
        raise UserError(
            f"the label of {where(i)} is {value}, which is no class; for numbers as targets choose task=regression"
        )
    return _whole(value, where, i)


def _first_text(values: np.ndarray) -> tuple[int, Any]:
    for i, row in enumerate(values):
        for value in np.asarray(row).ravel().tolist():
            try:
                float(value)
            except (TypeError, ValueError):
                return i, value
    return 0, values.ravel()[0]
