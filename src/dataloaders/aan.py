"""Retrieval (Long Range Arena): does one paper of the ACL Anthology Network cite the other? Two texts read character by
character, one answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders.base import Batch, RaggedSet, check_sizes, collate_tokens, missing
from src.dataloaders.cache import cached_tensors, source_stamp
from src.dataloaders.tokens import TokenData
from src.dataloaders.vocab import PAD, CharFormat

_FILES = {"train": "train", "val": "eval", "test": "test"}
_SIZES = {"train": 147_086, "val": 18_090, "test": 17_437}
_HOW = (
    "download lra_release.gz (7.7 GB, https://storage.googleapis.com/long-range-arena/lra_release.gz), unpack it with "
    "`tar -xf` and put the three files of its tsv_data folder there, or set dataset.data_dir to that folder"
)


class PairSet(Dataset):
    """Pairs of token sequences that share one store: pair i is sequences ``pairs[i, 0]`` and ``pairs[i, 1]``."""

    def __init__(self, texts: RaggedSet, pairs: Tensor, y: Tensor) -> None:
        self.texts, self.pairs, self.y = texts, pairs, y

    def __len__(self) -> int:
        return len(self.y)

    def lengths(self) -> Tensor:
        """Tokens of the longer text of every pair ``(n,)``."""
        return self.texts.lengths()[self.pairs.long()].amax(1)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        first, second = self.pairs[index].tolist()
        return self.texts[first][0], self.texts[second][0], self.y[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [self[int(index)] for index in indices]


class AAN(TokenData):
    """147,086 / 18,090 / 17,437 pairs of papers as character ids, from LRA's ``new_aan_pairs.{train,eval,test}.tsv``.

    A line is ``label <TAB> id 1 <TAB> id 2 <TAB> text 1 <TAB> text 2``, without header or quoting. A batch of B pairs
    is 2B sequences padded to one length, all first texts before all second ones, with B labels:

    ====  ===================  =============================
    x     (2B, L <= l_max)     long
    y     (B,)                 1 if one paper cites the other
    z     ``lengths`` (2B,)
    ====  ===================  =============================
    """

    _name_ = "aan"
    d_output = 2
    class_names = ("not cited", "cited")

    def __init__(
        self,
        l_max: int = 4000,
        append_bos: bool = False,
        append_eos: bool = True,
        data_dir: str | None = None,
    ) -> None:
        super().__init__(data_dir)
        self.l_max, self.format = l_max, CharFormat(l_max, append_bos, append_eos)

    def setup(self) -> None:
        """Open the cache."""
        tensors = self.open_vocab()
        ends = tensors["ends"]
        texts = RaggedSet(tensors["flat"], ends, torch.zeros(len(ends)))
        self.train, self.val, self.test = (
            PairSet(texts, tensors[f"{split}_pairs"], tensors[f"{split}_label"]) for split in _FILES
        )

    def verify(self) -> None:
        """Also compare the number of pairs with the published one."""
        super().verify()
        found = {split: len(getattr(self, split)) for split in _SIZES}
        check_sizes("AAN", self.data_dir, found, _SIZES)

    def collate(self, batch: Any) -> Batch:
        """Stack the B pairs to 2B sequences of one padded length: first texts, then second texts."""
        first, second, targets = zip(*batch, strict=True)
        y = torch.stack(targets)
        x, _, z = collate_tokens(list(zip(first + second, torch.cat([y, y]), strict=True)), pad=self.vocab[PAD])
        return x, y, z

    def _tensors(self) -> dict[str, Tensor]:
        paths = {split: self.data_dir / f"new_aan_pairs.{name}.tsv" for split, name in _FILES.items()}
        if absent := [path.name for path in paths.values() if not path.is_file()]:
            raise missing(f"AAN's {', '.join(absent)}", self.data_dir, _HOW)
        settings = {
            "version": 1,
            "l_max": self.l_max,
            "append_bos": self.format.append_bos,
            "append_eos": self.format.append_eos,
            "source": source_stamp(*paths.values()),
        }
        return cached_tensors(self._name_, settings, lambda: self._build(paths))

    def _build(self, paths: dict[str, Path]) -> dict[str, Tensor]:
        """One pass over the files. A paper stands in many pairs, so each distinct text is kept once: memory is that of
        the distinct texts cut to ``l_max``, not of the files."""
        store: dict[str, int] = {}
        uses: list[int] = []  # how often each text occurs in the training pairs
        tensors: dict[str, Tensor] = {}
        for split, path in paths.items():
            labels, pairs = [], []
            for label, *texts in _read(path):
                numbers = [store.setdefault(self.format.clip(text), len(store)) for text in texts]
                uses += [0] * (len(store) - len(uses))
                for number in numbers:
                    uses[number] += split == "train"
                labels.append(label)
                pairs.append(numbers)
            tensors[f"{split}_label"] = torch.tensor(labels, dtype=torch.int64)
            tensors[f"{split}_pairs"] = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2)
        vocab = self.format.vocab(zip(store, uses, strict=True))
        flat, ends = self.format.encode(store, vocab)
        return tensors | {"vocab": vocab.to_tensor(), "flat": flat, "ends": ends}


def _read(path: Path) -> Iterator[tuple[int, str, str]]:
    """``(label, text 1, text 2)`` of each line, with a progress bar over the bytes of the file."""
    with (
        path.open("rb") as file,
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=None) as progress,
    ):
        for number, line in enumerate(file, start=1):
            progress.update(len(line))
            try:
                label, _, _, first, second = line.rstrip(b"\r\n").split(b"\t")
                if (answer := float(label)) not in (0, 1):
                    raise ValueError(f"label {label!r}")
                yield int(answer), first.decode(), second.decode()
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: expected label (0 or 1), two ids and two texts in UTF-8 separated by tabs "
                    f"({error}); the file is damaged or not LRA's, unpack it again"
                ) from error
