"""WikiText-103 and WikiText-2 (Merity et al., 2016): predict the next word of Wikipedia articles."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.base import check_sizes, load_hub, missing
from src.dataloaders.cache import cached_tensors, source_stamp
from src.dataloaders.tokens import TextStream
from src.dataloaders.vocab import EOS, UNK, Vocab
from src.paths import data_root

_SPLITS = ("train", "validation", "test")
_HUB = "Salesforce/wikitext"
_VERSIONS = {"wikitext-103": ("wt103", "0.3 GB"), "wikitext-2": ("wt2", "7 MB")}
_WORDS = {
    "wikitext-103": {"train": 103_227_021, "val": 217_646, "test": 245_569},
    "wikitext-2": {"train": 2_088_628, "val": 217_646, "test": 245_569},
}
_TEXT_FILES = (("train.txt", "valid.txt", "test.txt"), tuple(f"wiki.{s}.tokens" for s in ("train", "valid", "test")))

Lines = Callable[[], Iterable[str]]


class WikiText(TextStream):
    """One stream of word ids a split, read in windows: x, y (B, L <= l_max), y the next words.

    A line is its words between blanks, in their case, and ``<eos>``, empty lines included. Ids: ``<eos>`` 0, then the
    words of the training split by falling count, equal counts by first occurrence; ``<unk>`` is a word of the corpus.

    =============  ===========  ===========  =======  ============
    version        train        validation   test     vocabulary
    =============  ===========  ===========  =======  ============
    wikitext-103   103,227,021  217,646      245,569  267,735
    wikitext-2     2,088,628    217,646      245,569  33,278
    =============  ===========  ===========  =======  ============

    The files are looked for in ``data_dir``, or ``$DATA_PATH/wt103`` and ``$DATA_PATH/wikitext-103`` (wt2, wikitext-2):
    ``{train,valid,test}.txt``, the original ``wiki.{train,valid,test}.tokens``, or the hub's parquet files; otherwise
    they are fetched from the hub.
    """

    _name_ = "wikitext"
    level = "word"
    stream_names = _SPLITS

    def __init__(
        self, version: str = "wikitext-103", l_max: int = 8192, data_dir: str | None = None, seed: int = 42
    ) -> None:
        """``seed``: of the rotations of the training rows."""
        super().__init__(data_dir, seed)
        if version not in _VERSIONS:
            raise UserError(f"dataset.version is one of {', '.join(_VERSIONS)}, not {version}")
        gate.at_least(1, l_max=l_max)
        self.version, self.l_max = version, l_max

    def verify(self) -> None:
        """Also compare the number of words with the published one."""
        super().verify()
        found = {split: len(getattr(self, split).tokens) for split in ("train", "val", "test")}
        folder = next((folder for folder in self.folders if folder.is_dir()), self.folders[0])
        check_sizes(self.version, folder, found, _WORDS[self.version])

    @property
    def folders(self) -> list[Path]:
        """Where the files may lie, in the order of search."""
        roots = (
            [self.data_dir]
            if self._data_dir
            else [data_root() / _VERSIONS[self.version][0], data_root() / self.version]
        )
        inside = f"{self.version}-v1"  # a download of the hub's repository has a folder for each of its versions
        return [root / inside if (root / inside).is_dir() else root for root in roots]

    def _tensors(self) -> dict[str, Tensor]:
        texts = _find_texts(self.folders)
        files = texts or sorted(file for folder in self.folders for file in folder.rglob("*.parquet"))
        settings = {"version": 1, "corpus": self.version, "source": source_stamp(*files)}
        return cached_tensors(self.version, settings, lambda: _number(self._lines(texts)))

    def _lines(self, texts: list[Path]) -> dict[str, Lines]:
        if texts:
            return {split: lambda path=path: _file_lines(path) for split, path in zip(_SPLITS, texts, strict=True)}
        short, size = _VERSIONS[self.version]
        hub = load_hub(self.version, self.folders, _HUB, size, f"{self.version}-v1")
        if absent := [split for split in _SPLITS if split not in hub]:
            raise missing(
                f"the {' and the '.join(absent)} split of {self.version}",
                next(folder for folder in self.folders if folder.is_dir()),
                f"download it ({size}) with `hf download {_HUB} --repo-type dataset --include '{self.version}-v1/*' "
                f"--local-dir {data_root() / self.version}`, or put train.txt, valid.txt and test.txt in "
                f"{data_root() / short}",
            )
        if "text" not in hub["train"].column_names:
            raise UserError(f"{self.version} in {self.folders[-1]} has no column text; download {_HUB} again")
        return {split: lambda split=split: _hub_lines(hub[split], split) for split in _SPLITS}


def _find_texts(folders: list[Path]) -> list[Path]:
    """The training, validation and test file of the first folder that has text files.

    Raises:
        UserError: a folder has some of the three only.
    """
    for folder in folders:
        for names in _TEXT_FILES:
            found = [folder / name for name in names if (folder / name).is_file()]
            if len(found) == len(names):
                return found
            if found:
                absent = ", ".join(name for name in names if folder / name not in found)
                raise missing(absent, folder, f"put it beside {found[0].name}, or remove the incomplete folder")
    return []


def _file_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        try:
            yield from file
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text ({error.reason}); download it again") from error


def _hub_lines(rows: Any, split: str) -> Iterator[str]:
    yield from gate.hub_texts(rows, "text", gate.row_of(split))


def _number(splits: dict[str, Lines]) -> dict[str, Tensor]:
    """Vocabulary and int32 ids of every split, in one pass: words are numbered as they come and renumbered by count.

    Memory: twice the ids, 0.8 GB for WikiText-103.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    numbers[EOS]  # numbered first: 0
    found = _ids(splits["train"](), numbers.__getitem__)
    words, counts = list(numbers), np.bincount(found)
    order = np.concatenate([[0], 1 + np.argsort(-counts[1:], kind="stable")])
    ids = np.empty(len(words), dtype=np.int32)
    ids[order] = np.arange(len(words), dtype=np.int32)
    vocab = Vocab(words[i] for i in order)
    tensors = {"vocab": vocab.to_tensor(), "train": torch.from_numpy(ids[found])}

    unknown = vocab.ids.get(UNK)

    def number(word: str) -> int:
        if (known := vocab.ids.get(word, unknown)) is None:
            raise UserError(
                f"{word!r} is in the validation or test split only, and training has no {UNK} to put for it"
            )
        return known

    for split in ("validation", "test"):
        tensors[split] = torch.from_numpy(_ids(splits[split](), number))
    return tensors


def _ids(lines: Iterable[str], number: Callable[[str], int]) -> np.ndarray:
    ids = array("i")
    for line in tqdm(lines, desc="words", unit=" lines", unit_scale=True, disable=None):
        ids.extend(map(number, line.split()))
        ids.append(number(EOS))
    return np.frombuffer(ids, dtype=np.int32) if ids else np.empty(0, dtype=np.int32)
