"""Language modelling on one long stream of tokens: rows for training, consecutive windows for evaluation.

For training the stream is cut into as many equal rows as samples are trained on at once, on all processes together,
and step i reads window i of every row: each process keeps rows of its own, and each row is read in order. Every epoch
rotates each row by a random number of tokens, on top of the rotations before, so that the windows begin at other words.
Evaluation reads the stream as a single row, and scores every token but the first, which has nothing before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdn.errors import UserError
from src.dataloaders.base import Batch
from src.dataloaders.loading import BatchOrder, Shard

IGNORED = -100
"""Target of a position that is not scored."""


class TokenWindows(Dataset):
    """Windows of ``rows`` equal parts of ``tokens`` (T,); tokens that do not fill the rows are left out at the end.

    Sample ``window * rows + row`` is ``(x, y)``, both (l,), l <= l_max, where y is x one token later; the last window
    of a row is short. With a ``seed`` the rows are rotated: sample ``epoch * len(self) + i`` is sample i in that epoch.
    """

    def __init__(self, tokens: Tensor, l_max: int, rows: int = 1, seed: int | None = None) -> None:
        """Raises UserError if a row has less than two tokens."""
        self.length = len(tokens) // rows
        if self.length < 2:
            raise UserError(f"{len(tokens)} tokens are too few for {rows} row(s); lower loader.batch_size")
        self.tokens, self.l_max, self.rows, self.seed = tokens, l_max, rows, seed
        self._rotation: tuple[int, Tensor] = (-1, torch.zeros(rows, dtype=torch.int64))

    def __len__(self) -> int:
        return self.rows * -(-(self.length - 1) // self.l_max)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        epoch, sample = divmod(index, len(self))
        window, row = divmod(sample, self.rows)
        start = window * self.l_max
        stop = min(start + self.l_max, self.length - 1) + 1
        places = (int(self.rotation(epoch)[row]) + torch.arange(start, stop)) % self.length
        tokens = self.tokens[row * self.length + places].long()
        return tokens[:-1], tokens[1:]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[int(index)] for index in indices]

    def rotation(self, epoch: int) -> Tensor:
        """Where each row begins (rows,): the sum of the shifts of epochs 0 .. ``epoch``, drawn with seed + epoch."""
        if self.seed is None:
            return self._rotation[1]
        done, total = self._rotation
        if done > epoch:
            done, total = -1, torch.zeros_like(total)
        for past in range(done + 1, epoch + 1):
            generator = torch.Generator().manual_seed(self.seed + past)
            total = (total + torch.randint(self.length, (self.rows,), generator=generator)) % self.length
        self._rotation = (epoch, total)
        return total


class WindowOrder(BatchOrder):
    """One window of every row after the other; samples carry the epoch, so that loader processes need not be told."""

    def __init__(self, windows: TokenWindows, batch_size: int, shard: Shard) -> None:
        super().__init__(len(windows), batch_size, shuffle=False, drop_last=False, seed=0, shard=shard)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield [self.epoch * self.n + sample for sample in batch]


def collate_windows(batch: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """x, y (B, L) long; windows shorter than the longest are filled up with token 0 and ignored targets."""
    x, y = (
        torch.nn.utils.rnn.pad_sequence(list(part), batch_first=True, padding_value=filler)
        for part, filler in zip(zip(*batch, strict=True), (0, IGNORED), strict=True)
    )
    return x, y, {}
