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

from torch import Tensor
from torch.utils.data import Dataset

from sdn.errors import UserError, reason
from src.dataloaders.contents import Contents, of_splits
from src.dataloaders.files import MissingError
from src.dataloaders.loading import Loader, LoaderOptions, Shard, make_loader
from src.dataloaders.sets import Batch, RaggedSet, TensorSet, collate_ragged, collate_tokens
from src.dataloaders.splits import random_split, stratified_split
from src.paths import data_root, resolve

__all__ = [
    "Batch",
    "Collate",
    "RaggedSet",
    "SequenceData",
    "TensorSet",
    "check_sizes",
    "collate_ragged",
    "collate_tokens",
    "load_hub",
    "missing",
    "random_split",
    "stratified_split",
]

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
    class_names: Sequence[str] | None = None
    """What the classes are called, in their order."""
    input_scale: Mapping[str, Sequence[float]] | None = None
    """How x comes from what was recorded: ``{"shift": ..., "scale": ...}``, a number a channel each,
    x = (recorded - shift) * scale; None where x is what was recorded."""
    sampling_step: float | None = None
    """Seconds between two steps, None where steps are not in time."""

    contents: Contents | None = None
    """What the data consist of (:mod:`src.dataloaders.contents`), once they are open."""

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
        """Make every cache again from its source and compare, and packed files with their checksums.

        Override to check more, such as the published number of samples.

        Raises:
            UserError: something differs.
        """
        from src.dataloaders.cache import comparing

        with comparing():
            self.prepare()
            self.setup()

    def checksums(self) -> Contents:
        """Names and checksums of data that no cache has noted, by default of splits in memory; a run that goes on from
        a checkpoint refuses others than its own."""
        return of_splits(self)

    def facts(self) -> dict[str, Any]:
        """What the user of a trained network must know of its inputs and outputs, as plain data: whichever is known of
        ``class_names``, ``input_scale``, ``sampling_step`` and, for token ids, the ``tokens`` in the order of ids."""
        scale, vocab = self.input_scale, getattr(self, "vocab", None)
        facts = {
            "class_names": None if self.class_names is None else list(self.class_names),
            "input_scale": None if scale is None else {key: [*map(float, value)] for key, value in scale.items()},
            "sampling_step": self.sampling_step,
            "tokens": list(vocab.tokens) if vocab is not None and self.n_tokens is not None else None,
        }
        return {key: value for key, value in facts.items() if value is not None}

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


def missing(what: str, where: Path, how: str) -> MissingError:
    """The error for absent data: what is missing, where it was looked for and how to get it."""
    return MissingError(f"{what} not found in {where}; {how}")


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
        if folder is not None:
            raise UserError(f"cannot read {name} from {folder}: {reason(error)}") from error
        raise missing(
            name,
            folders[0],
            f"and the hub could not be reached ({reason(error)}): download {hub} ({size}) with "
            f"`hf download {hub} --repo-type dataset --local-dir {folders[0]}`, or point DATA_PATH at a folder that "
            f"holds {folders[0].name}/",
        ) from error
