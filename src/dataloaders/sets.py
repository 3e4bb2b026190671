"""Sets of sequences in memory, of one length or of many, and how their batches are padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

Batch = tuple[Tensor, Tensor, dict[str, Any]]

NO_CLASS = -1
"""Class of a step that is padding or carries no label."""


def targets(y: Tensor) -> Tensor:
    """Classes as int64, numbers as float32."""
    return y.float() if y.is_floating_point() else y.long()


class TensorSet(Dataset):
    """Sequences of one length held in memory: ``x[i]`` any shape and type, ``y[i]`` the class, or numbers if floating.

    ``transform`` maps a whole batch of ``x`` (such as uint8 pixels) to the model's input.
    """

    def __init__(self, x: Tensor, y: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs but {len(y)} targets")
        self.x, self.y, self.transform = x, targets(y), transform

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = torch.as_tensor(indices)
        x = self.x[rows]
        return (self.transform(x) if self.transform else x), self.y[rows]


class RaggedSet(Dataset):
    """Sequences of many lengths in one flat tensor: sequence i is ``flat[ends[i-1]:ends[i]]``, tokens (T,) of any
    integer type or numbers (T, d).

    ``y (n, ...)`` is a target a sequence, or with ``per_step`` ``y (T, ...)`` one a step. ``transform`` maps steps
    (L_i, d) to the model's input. Fetching returns a list of ``(steps (L_i, ...), y)``, which :func:`collate_ragged`
    pads.
    """

    def __init__(
        self,
        flat: Tensor,
        ends: Tensor,
        y: Tensor,
        per_step: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        n = len(flat) if per_step else len(ends)
        if n != len(y) or (len(ends) and int(ends[-1]) != len(flat)):
            raise ValueError(
                f"{len(ends)} sequences ending at {ends[-1:].tolist()}, {len(y)} targets, {len(flat)} tokens"
            )
        self.flat, self.y, self.per_step, self.transform = flat, targets(y), per_step, transform
        self.starts = torch.cat([ends.new_zeros(1), ends]).long().tolist()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> Tensor:
        """Steps of every sequence ``(n,)``."""
        return torch.tensor(self.starts).diff()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        part = slice(self.starts[index], self.starts[index + 1])
        x = self.flat[part]
        return (self.transform(x) if self.transform else x), self.y[part if self.per_step else index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[int(index)] for index in indices]


def collate_ragged(batch: Sequence[tuple[Tensor, Tensor]], pad: int = 0) -> Batch:
    """Pad to the longest of the batch: x (B, L) long or (B, L, d) float, y, z {"lengths": (B,)}.

    Targets of one shape are stacked. Targets a step are padded as x is, classes with :data:`NO_CLASS` and numbers
    with 0; a task leaves out what lies beyond the lengths.
    """
    sequences, answers = zip(*batch, strict=True)
    x = pad_sequence(list(sequences), batch_first=True, padding_value=pad)
    if all(y.shape == answers[0].shape for y in answers):
        y = torch.stack(list(answers))
    else:
        y = pad_sequence(list(answers), True, 0.0 if answers[0].is_floating_point() else NO_CLASS)
    return targets(x), y, {"lengths": torch.tensor([len(s) for s in sequences])}


collate_tokens = collate_ragged
"""The same by the name of what the text families pad."""
