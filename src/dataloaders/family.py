"""What the data families that need no code have in common: read once, check, cache, split, scale.

A family says in :meth:`Family.read` how files become :class:`Samples`; all else is here. Sequences of one length become
a :class:`TensorSet`, of many a :class:`RaggedSet` with ``lengths``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.base import Batch, RaggedSet, SequenceData, TensorSet, collate_ragged
from src.dataloaders.cache import cached_tensors, fingerprint
from src.dataloaders.files import existing, stamp
from src.dataloaders.gate import Where
from src.dataloaders.scaling import Scale, mean_and_deviation
from src.dataloaders.splits import check_shares, divide
from src.dataloaders.vocab import Vocab

TARGETS = ("classes", "numbers")
NORMALISE = ("standard", "none")


@dataclass
class Samples:
    """What was read: sequence i is ``x[i]``, (L_i, d) numbers or (L_i,) token ids; its target is ``y[i]``, one value or
    with targets a step (L_i,) or (L_i, k) of them."""

    x: Sequence[np.ndarray]
    y: Sequence[Any]
    where: Where
    """The place of sample i, for sentences."""
    split: Sequence[int] | None = None
    """0, 1 or 2 of each sample for training, validation, test; None: to be drawn."""
    tokens: Sequence[str] | None = None
    """What the ids of x stand for; None where x are numbers."""
    class_names: Sequence[str] | None = None
    """Names of the classes in the order of their ids; None: the labels that occur, sorted."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is to be remembered, as plain data."""


class Family(SequenceData):
    """Base of the families that need no code.

    Args:
        path: the user's file or folder.
        targets: ``classes``, or ``numbers`` for task=regression.
        per_step: the targets are one a step, for decoder=per_step.
        l_max: longer sequences are cut to this many steps; null: none is.
        normalise: ``standard`` brings every channel to mean 0 and deviation 1 over the training samples; ``none``.
        val_split, test_split: shares drawn at random, an equal one of each class, where the data name no such samples.
        seed: of the draw.
    """

    version = 1
    """Raised when the meaning of the cached tensors changes."""

    def __init__(
        self,
        path: str,
        targets: str = "classes",
        per_step: bool = False,
        l_max: int | None = None,
        normalise: str = "standard",
        val_split: float = 0.1,
        test_split: float = 0.2,
        seed: int = 42,
    ) -> None:
        super().__init__(path, seed)
        gate.one_of(TARGETS, targets=targets)
        gate.one_of(NORMALISE, normalise=normalise)
        gate.at_least(1, l_max=l_max)
        check_shares(val_split=val_split, test_split=test_split)
        self.targets, self.per_step, self.normalise = targets, bool(per_step), normalise
        self.cut_to, self.val_split, self.test_split = l_max, val_split, test_split

    # -- what a family says ---------------------------------------------------------------------------------------

    def read(self) -> Samples:
        """Everything there is to read.

        Raises:
            UserError: it cannot be read, with the file and the row.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Options of the family that shape what :meth:`read` returns."""
        return {}

    def sources(self) -> list[Path]:
        """The files that are read; a change of one makes the cache anew."""
        path = self.path
        return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]

    def source(self) -> Any:
        """What identifies the data as they are on disk."""
        return stamp(self.path, self.sources())

    @property
    def path(self) -> Path:
        """The user's file or folder.

        Raises:
            UserError: there is no such thing.
        """
        return existing(self._data_dir)

    # -- what all share -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read and check, unless that was done before."""
        self._tensors()

    def setup(self) -> None:
        """Open the cache, split and scale."""
        tensors = self._tensors()
        about = json_of(tensors["about"])
        flat, ends, y = tensors["flat"], tensors["ends"], tensors["y"]
        one_class_each = self.targets == "classes" and not self.per_step
        strata = y.long() if one_class_each else torch.zeros(len(ends), dtype=torch.int64)
        parts = divide(tensors.get("split"), strata, self.val_split, self.test_split, self.seed)
        self._take(about, y)
        transform = None
        if about["tokens"] is not None:
            self.vocab = Vocab(about["tokens"])
            self.n_tokens = len(self.vocab)
        else:
            self.d_input = flat.shape[1]
            shift, scale = self._scaling(flat, ends, parts[0])
            transform = Scale(shift, scale)
            if self.normalise != "none" or (shift != 0).any() or (scale != 1).any():
                self.input_scale = {"shift": shift.tolist(), "scale": scale.tolist()}
        lengths = ends.diff(prepend=ends.new_zeros(1))
        self.l_max = int(lengths.max())
        if int(lengths.min()) == self.l_max:
            x = flat.view(len(ends), self.l_max, *flat.shape[1:])
            y = y.view(len(ends), self.l_max, *y.shape[1:]) if self.per_step else y
            everything: TensorSet | RaggedSet = TensorSet(x, y, transform or _ids)
        else:
            everything = RaggedSet(flat, ends, y, self.per_step, transform)
        self.train, self.val, self.test = (Subset(everything, part.tolist()) for part in parts)

    def collate(self, batch: Any) -> Batch:
        """Pad to the longest of the batch where sequences have many lengths."""
        return (*batch, {}) if isinstance(batch, tuple) else collate_ragged(batch)

    def _take(self, about: dict[str, Any], y: Tensor) -> None:
        if self.targets == "classes":
            self.class_names = tuple(about["classes"])
            self.d_output = len(self.class_names)
        else:
            self.d_output = y.shape[1] if y.ndim > 1 else 1

    def _scaling(self, flat: Tensor, ends: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale (d,) of x = (recorded - shift) * scale."""
        d = flat.shape[1]
        if self.normalise == "none":
            return torch.zeros(d), torch.ones(d)
        key = {"of": self._key(), "train": fingerprint({"rows": sorted(train.tolist())})}

        def measure() -> dict[str, Tensor]:
            mean, deviation = mean_and_deviation(flat, ends, train)
            return {"mean": mean, "deviation": deviation}

        found = cached_tensors(f"{self._name_}-statistics", key, measure, derived=True)
        return found["mean"].float(), (1 / torch.where(found["deviation"] > 0, found["deviation"], 1.0)).float()

    def _key(self) -> dict[str, Any]:
        shape = {"targets": self.targets, "per_step": self.per_step, "l_max": self.cut_to}
        return {"version": self.version, "source": self.source(), **shape, **self.settings()}

    def _tensors(self) -> dict[str, Tensor]:
        return cached_tensors(self._name_, self._key(), lambda: self._pack(self.read()))

    def _pack(self, samples: Samples) -> dict[str, Tensor]:
        """Samples checked and end to end: ``flat`` (T, d) or ids (T,), ``ends`` (n,), ``y``, ``split``, ``about``."""
        if not len(samples.x):
            raise UserError(f"there are no samples in {self.path}")
        x, y = self._cut(samples)
        flat = _numbers(x, samples.where) if samples.tokens is None else torch.from_numpy(np.concatenate(x))
        tensors = {"flat": flat, "ends": torch.tensor([len(row) for row in x]).cumsum(0)}
        tensors["y"], classes = self._answers(y, samples)
        if samples.split is not None:
            tensors["split"] = torch.tensor(samples.split, dtype=torch.uint8)
        tokens = None if samples.tokens is None else list(samples.tokens)
        tensors["about"] = json_tensor({"classes": classes, "tokens": tokens, **samples.facts})
        return tensors

    def _cut(self, samples: Samples) -> tuple[list[np.ndarray], list[Any]]:
        """Every sequence, and its targets a step, as arrays of at most ``l_max`` steps."""
        x, y = [], []
        for i, (row, answer) in enumerate(zip(samples.x, samples.y, strict=True)):
            steps = np.asarray(row) if samples.tokens is not None or np.ndim(row) != 1 else np.asarray(row)[:, None]
            if not len(steps):
                raise UserError(f"{samples.where(i)} is an empty sequence; leave it out")
            if self.per_step:
                answer = np.asarray(answer)
                if answer.ndim < 1 or len(answer) != len(steps):
                    found = len(answer) if answer.ndim else "one"
                    raise UserError(f"{samples.where(i)} has {len(steps)} steps and {found} target(s); give one a step")
                answer = answer[: self.cut_to]
            x.append(steps[: self.cut_to])
            y.append(answer)
        return x, y

    def _answers(self, y: list[Any], samples: Samples) -> tuple[Tensor, list[str] | None]:
        """Targets as classes (n,) or (T,) int64 with their names, or numbers float32."""
        where = samples.where
        if self.per_step:
            sizes = [len(row) for row in y]
            of = np.repeat(np.arange(len(y)), sizes)
            starts = np.cumsum([0, *sizes])
            where = lambda i: f"step {i - starts[of[i]]} of {samples.where(int(of[i]))}"  # noqa: E731
            y = np.concatenate(y)
        if self.targets == "numbers":
            try:
                values = np.stack([np.asarray(row) for row in y]) if not isinstance(y, np.ndarray) else y
            except ValueError as error:
                raise UserError(f"the targets of {self.path} have different numbers of values") from error
            if values.ndim > 2:
                raise UserError(f"the targets of {self.path} have shape {values.shape}; give a row of numbers each")
            return torch.from_numpy(gate.finite(values, lambda i: f"the target of {where(i)}")), None
        if any(np.ndim(value) for value in y[:1]):
            raise UserError(
                f"the targets of {self.path} are rows of numbers, not classes; choose task=per_step decoder=per_step "
                "for a class a step, or task=regression"
            )
        ids, names = gate.classes(y, where, samples.class_names)
        return ids, list(names)


def _ids(x: Tensor) -> Tensor:
    return x.long()


def _numbers(x: list[np.ndarray], where: Where) -> Tensor:
    """All rows (T, d) end to end: small whole numbers as they are, others as float32."""
    width = x[0].shape[1:]
    for i, row in enumerate(x):
        if row.ndim != 2 or row.shape[1:] != width:
            raise UserError(
                f"{where(i)} has shape {row.shape}, but {where(0)} has {width[0] if width else 1} channel(s)"
            )
    kinds = {row.dtype for row in x}
    if len(kinds) == 1 and next(iter(kinds)) in (np.uint8, np.int8, np.int16):
        return torch.from_numpy(np.concatenate(x))
    ends = np.cumsum([len(row) for row in x])

    def step(i: int) -> str:
        sample = int(np.searchsorted(ends, i, side="right"))
        return f"step {i - (ends[sample] - len(x[sample]))} of {where(sample)}"

    try:
        flat = np.concatenate(x)
    except (TypeError, ValueError) as error:
        raise UserError(f"the sequences cannot stand in one array: {error}") from error
    return torch.from_numpy(gate.finite(flat, step))


def json_tensor(value: Any) -> Tensor:
    """Plain data as a uint8 tensor, to be kept in the file of the tensors it belongs to."""
    return torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy())


def json_of(tensor: Tensor) -> Any:
    """Inverse of :func:`json_tensor`."""
    return json.loads(tensor.numpy().tobytes())
