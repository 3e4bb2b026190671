"""What every data family is: three splits of sequences and a way to batch them.

A family is one file with one subclass of :class:`SequenceData`, named in ``src/registry.py``. It says how wide its
inputs and outputs are, makes ``train``, ``val`` and ``test``, and collates a batch to ``(x, y, z)``:

====  ==========================================================  ===============================================
x     (B, L, d_input) float, or (B, L) long if ``n_tokens``       padded to the longest of the batch
y     (B,) long; (B, L) long                                      the class; a class a step, below 0 without one
      (B, K) or (B, L, K) float                                   numbers, of the sequence or of every step
z     dict                                                        ``lengths`` (B,) long where sequences are padded,
                                                                  ``rate`` float for another sampling step
====  ==========================================================  ===============================================

Data sets fetch whole batches (``__getitems__``), so that an in-memory set costs one indexing per batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from sdn.errors import UserError
from src.dataloaders.loading import Loader, LoaderOptions, Shard, make_loader
from src.paths import data_root, resolve

Batch = tuple[Tensor, Tensor, dict[str, Any]]
Collate = Callable[[Any], Batch]


class SequenceData:
    """Base of all data families.

    Subclasses take the keys of their ``dataset`` config as named constructor arguments (no ``**kwargs``: an unknown
    key is an error) and fill ``train``, ``val`` and ``test`` in :meth:`setup`. The widths may be properties; they
    are read after :meth:`setup`.
    """

    _name_: ClassVar[str]
    d_input: int = 1
    d_output: int
    n_tokens: int | None = None
    """Vocabulary size if x holds token ids, else None."""
    l_max: int | None = None
    """Longest sequence, None if unknown."""

    train: Dataset
    val: Dataset
    test: Dataset

    def __init__(self, data_dir: str | None = None, seed: int = 42) -> None:
        """``data_dir``: overrides :attr:`default_dir`; ``seed``: of random splits, apart from the training seed."""
        self._data_dir, self.seed = data_dir, int(seed)

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceData:
        """Itself: data are large and read only; copies of a model (averaged weights) share them."""
        return self

    @property
    def data_dir(self) -> Path:
        """Folder of this family's source files: the ``data_dir`` the user gave, or ``$DATA_PATH/<_name_>``."""
        return resolve(self._data_dir) if self._data_dir else data_root() / self._name_

    def prepare(self) -> None:
        """Download and build caches. Every process calls it, so it must be safe to run in several at once:
        build through :func:`src.dataloaders.cache.cached_tensors` or under :func:`~src.dataloaders.cache.locked`."""

    def setup(self) -> None:
        """Make ``train``, ``val`` and ``test``, in every process, after :meth:`prepare`."""
        raise NotImplementedError

    def collate(self, batch: Any) -> Batch:
        """Turn what a data set's ``__getitems__`` returned into ``(x, y, z)``."""
        x, y = batch
        return x, y, {}

    def train_collate(self, batch: Any) -> Batch:
        """As :meth:`collate`, for training batches: the place of random augmentation."""
        return self.collate(batch)

    def views(self, split: str) -> dict[str, tuple[Dataset, Collate]]:
        """What is evaluated of ``split`` ("val" or "test"): log prefix -> (data set, collate).

        The first is the one checkpoints are chosen by. Override to evaluate other views as well, such as
        ``{"val": ..., "val/2": ...}`` for half the sampling rate.
        """
        return {split: (getattr(self, split), self.collate)}

    def verify(self) -> None:
        """Compare what is on disk with its checksums or its source, after :meth:`prepare`, where there is such a thing.

        Raises:
            UserError: something differs.
        """

    def picture(self, x: Tensor) -> Tensor | None:
        """One sequence x (L, d_input) of numbers as a grey picture (h, w) in [0, 1] for a preview: a square image read
        row by row, or None if it is none."""
        side = math.isqrt(len(x))
        if self.d_input != 1 or side * side != len(x):
            return None
        low, high = x.min(), x.max()
        return ((x - low) / (high - low).clamp(min=1e-6)).reshape(side, side)

    def train_loader(self, options: LoaderOptions, shard: Shard, seed: int) -> Loader:
        """The training batches of one process. Override, with the next one, for data that are no set of samples."""
        return make_loader(self.train, self.train_collate, options, shard, train=True, seed=seed)

    def eval_loaders(self, split: str, options: LoaderOptions, shard: Shard) -> dict[str, Loader]:
        """One loader for each of :meth:`views`, by log prefix."""
        return {
            name: make_loader(dataset, collate, options, shard, train=False)
            for name, (dataset, collate) in self.views(split).items()
        }


class TensorSet(Dataset):
    """Sequences of one length held in memory: ``x[i]`` any shape and type, ``y[i]`` the class, or numbers if floating.

    ``transform`` maps a whole batch of ``x`` (such as uint8 pixels) to the model's input.
    """

    def __init__(self, x: Tensor, y: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs but {len(y)} targets")
        self.x, self.y, self.transform = x, y if y.is_floating_point() else y.long(), transform

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
    """Token sequences of many lengths in one flat tensor: sequence i is ``flat[ends[i-1]:ends[i]]``.

    ``flat`` may be of any integer type (uint8 for characters). Fetching returns a list of ``(tokens (L_i,), y)``,
    which :func:`collate_tokens` pads.
    """

    def __init__(self, flat: Tensor, ends: Tensor, y: Tensor) -> None:
        if len(ends) != len(y) or (len(ends) and int(ends[-1]) != len(flat)):
            raise ValueError(
                f"{len(ends)} sequences ending at {ends[-1:].tolist()}, {len(y)} targets, {len(flat)} tokens"
            )
        self.flat, self.y = flat, y.long()
        self.starts = torch.cat([ends.new_zeros(1), ends]).long().tolist()

    def __len__(self) -> int:
        return len(self.y)

    def lengths(self) -> Tensor:
        """Tokens of every sequence ``(n,)``."""
        return torch.tensor(self.starts).diff()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.flat[self.starts[index] : self.starts[index + 1]], self.y[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[int(index)] for index in indices]


def collate_tokens(batch: Sequence[tuple[Tensor, Tensor]], pad: int = 0) -> Batch:
    """Pad to the longest of the batch: x (B, L) long, y (B,), z {"lengths": (B,)}."""
    sequences, targets = zip(*batch, strict=True)
    x = pad_sequence(list(sequences), batch_first=True, padding_value=pad).long()
    return x, torch.stack(list(targets)), {"lengths": torch.tensor([len(s) for s in sequences])}


def random_split(n: int, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Indices of a random partition of ``range(n)``, the one ``torch.utils.data.random_split`` makes for ``seed``."""
    if sum(sizes) != n:
        raise ValueError(f"parts {list(sizes)} do not add up to {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return list(order.split(list(sizes)))


def missing(what: str, where: Path, how: str) -> UserError:
    """The error for absent data: what is missing, where it was looked for and how to get it."""
    return UserError(f"{what} not found in {where}; {how}")


def check_sizes(what: str, where: Path, found: Mapping[str, int], official: Mapping[str, int]) -> None:
    """Compare the size of each split with the published one.

    Raises:
        UserError: one differs; the source files are incomplete or others.
    """
    for split, size in official.items():
        if found[split] != size:
            raise UserError(
                f"{what} in {where} has {found[split]:,} {split} samples, not {size:,}; "
                "its files are incomplete or another release, get them again"
            )


def load_hub(name: str, folders: Sequence[Path], hub: str, size: str, config: str | None = None) -> Mapping[str, Any]:
    """A hub data set as ``{split: datasets.Dataset}``: from the first of ``folders`` that exists (hub layout,
    parquet files), otherwise downloaded by its hub name.

    Raises:
        UserError: not on disk and not to be had from the hub, or the folder cannot be read.
    """
    import datasets

    folder = next((f for f in folders if f.is_dir() and any(f.rglob("*.parquet"))), None)
    try:
        if folder is not None:
            files = {
                split: sorted(str(f) for f in folder.rglob(f"{split}-*.parquet"))
                for split in ("train", "validation", "test")
            }
            datasets.disable_progress_bars()  # of a conversion that takes a second; a download keeps its own
            return datasets.load_dataset("parquet", data_files={k: v for k, v in files.items() if v})
        return datasets.load_dataset(hub, config)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if folder is not None:
            raise UserError(f"cannot read {name} from {folder}: {reason}") from error
        raise missing(
            name,
            folders[0],
            f"and the hub could not be reached ({reason}): download {hub} ({size}) with "
            f"`hf download {hub} --repo-type dataset --local-dir {folders[0]}`, or point DATA_PATH at a folder that "
            f"holds {folders[0].name}/",
        ) from error
