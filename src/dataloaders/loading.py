"""Loaders: the order of the data, exact over processes and over an interruption.

The order of an epoch is a function of (seed, epoch) alone. Batch b of world size W takes the next W x batch_size
samples of it and each rank its slice, so W processes see in a step what one process with the W-fold batch would see.
Evaluation visits every sample exactly once: where the last samples do not fill all ranks, repeated samples keep the
ranks in step and ``z["weight"]`` (B,) is 0 for them.

Sequences of many lengths are padded to the longest of their batch. With ``loader.bucket: n`` every n batches of the
order are a pool, whose samples are sorted by length and cut into batches anew, and the batches of a pool come in random
order. What is in a pool and which samples an incomplete last batch holds stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from models.spike.lengths import check_lengths
from sdn.errors import UserError


@dataclass(frozen=True)
class LoaderOptions:
    """The ``loader`` config; ``batch_size`` counts per process."""

    batch_size: int = 50
    eval_batch_size: int | None = None
    num_workers: int = 0
    pin_memory: bool | None = None
    drop_last: bool = True
    eval_drop_last: bool = False
    bucket: int = 0

    def __post_init__(self) -> None:
        if self.bucket < 0:
            raise UserError(f"loader.bucket is a number of batches, 0 for none, not {self.bucket}")
        for name in ("batch_size", "eval_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"loader.{name} must be at least 1, not {value}")

    @property
    def pins(self) -> bool:
        """Whether batches are made in page-locked memory."""
        return torch.cuda.is_available() if self.pin_memory is None else self.pin_memory


@dataclass(frozen=True)
class Shard:
    """Which part of every batch is this process's."""

    rank: int = 0
    world: int = 1


class BatchOrder(Sampler[list[int]]):
    """The batches of one rank, as lists of indices; a repeated sample i that must not count is written ``~i``.

    ``lengths (n,)`` of the samples and ``bucket`` > 0: batches of similar length, see the module's head.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        shard: Shard,
        bucket: int = 0,
        lengths: torch.Tensor | None = None,
    ) -> None:
        self.n, self.batch_size, self.shuffle, self.drop_last = n, batch_size, shuffle, drop_last
        self.seed, self.shard, self.bucket, self.lengths = seed, shard, bucket, lengths
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        whole, rest = divmod(self.n, self.batch_size * self.shard.world)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Order the data for ``epoch``; a position within another epoch is forgotten."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[list[int]]:
        start, self.start = self.start, 0
        order, together = self._order(), self.batch_size * self.shard.world
        for batch in range(start, len(self)):
            samples = order[batch * together : (batch + 1) * together].tolist()
            each = -(-len(samples) // self.shard.world)
            samples += [~samples[0]] * (each * self.shard.world - len(samples))
            yield samples[self.shard.rank * each : (self.shard.rank + 1) * each]

    def _order(self) -> torch.Tensor:
        """All samples in the order of this epoch ``(n,)``."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.n, generator=generator) if self.shuffle else torch.arange(self.n)
        if not self.bucket or self.lengths is None:
            return order
        together = self.batch_size * self.shard.world
        whole = self.n // together * together
        for pool in order[:whole].split(self.bucket * together):
            batches = pool[self.lengths[pool].argsort(stable=True)].view(-1, together)
            pool.copy_(batches[torch.randperm(len(batches), generator=generator)].flatten())
        return order

    def padding(self, lengths: torch.Tensor) -> float:
        """Share of the steps of this epoch's batches that is padding, for samples of ``lengths (n,)``."""
        together = self.batch_size * self.shard.world
        batches = [lengths[part] for part in self._order()[: len(self) * together].split(together)]
        steps = sum(int(part.max()) * len(part) for part in batches)
        return 1 - sum(int(part.sum()) for part in batches) / steps


def lengths_of(dataset: Dataset) -> torch.Tensor | None:
    """Length of every sample ``(n,)`` as the data set's ``lengths()`` says; None if it does not."""
    if isinstance(dataset, Subset):
        inner = lengths_of(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(dataset.indices)]
    tell = getattr(dataset, "lengths", None)
    return tell() if callable(tell) else None


class _Marked(Dataset):
    """Fetch samples written ``~i`` as i and say which they were."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: list[int]) -> tuple[Any, torch.Tensor | None]:
        real = [i if i >= 0 else ~i for i in indices]
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(real) if fetch else [self.dataset[i] for i in real]
        weight = torch.tensor([float(i >= 0) for i in indices]) if real != indices else None
        return samples, weight


class _MarkedCollate:
    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, batch: tuple[Any, torch.Tensor | None]) -> Any:
        samples, weight = batch
        x, y, z = self.collate(samples)
        if "lengths" in z:
            check_lengths(z["lengths"], *x.shape[:2])  # here they are on the CPU, whatever trains
        return x, y, (z if weight is None else {**z, "weight": weight})


class Loader:
    """Batches ``(x, y, z)`` in the order of a :class:`BatchOrder`, resumable in the middle of an epoch.

    Not a ``DataLoader`` itself, so that Lightning leaves its order alone. Iteration starts with the first ``next``:
    until then the epoch and the position may still be set.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Callable[[Any], Any],
        order: BatchOrder,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.order = self.sampler = self.batch_sampler = order  # Lightning tells the last two the epoch
        self._delivered = 0
        self._generator = torch.Generator()  # of worker seeds; a generator of its own leaves the global one alone
        self._loader = DataLoader(
            _Marked(dataset),
            batch_sampler=order,
            collate_fn=_MarkedCollate(collate),
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            generator=self._generator,
        )

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        self._delivered = self.order.start
        self._generator.manual_seed(self.order.seed * 1_000_003 + self.order.epoch)
        for batch in self._loader:
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands."""
        return {"epoch": self.order.epoch, "batch": self._delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there at the next iteration; a finished epoch starts anew."""
        self.order.epoch = state["epoch"]
        self.order.start = state["batch"] if state["batch"] < len(self.order) else 0


def make_loader(
    dataset: Dataset,
    collate: Callable[[Any], Any],
    options: LoaderOptions,
    shard: Shard,
    train: bool,
    seed: int = 0,
) -> Loader:
    """A loader for training (shuffled by ``seed``) or evaluation.

    Raises:
        UserError: the data are fewer than one batch, or ``bucket`` is set and they tell no lengths.
    """
    size = options.batch_size if train else options.eval_batch_size or options.batch_size
    drop_last = options.drop_last if train else options.eval_drop_last
    lengths = lengths_of(dataset) if options.bucket else None
    if options.bucket and lengths is None:
        raise UserError("loader.bucket sorts by length, but this data set tells none; set loader.bucket=0")
    order = BatchOrder(len(dataset), size, train, drop_last, seed, shard, options.bucket, lengths)
    if len(order) == 0:
        raise UserError(
            f"{len(dataset)} {'training' if train else 'evaluation'} samples do not fill one batch of {size} on "
            f"{shard.world} process(es); lower loader.batch_size"
        )
    return Loader(dataset, collate, order, options.num_workers, options.pins)
