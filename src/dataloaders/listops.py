"""ListOps (Long Range Arena): the value of a nested expression of list operators, one of ten digits.

Read from LRA's ``basic_{train,val,test}.tsv`` if they lie in the data folder, otherwise generated from the same
distribution (:mod:`src.dataloaders.listops_generator`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.base import RaggedSet, missing
from src.dataloaders.cache import cached_tensors, source_stamp
from src.dataloaders.listops_generator import CLOSE, SYMBOLS, Expressions, ListOpsSettings, generate
from src.dataloaders.tokens import TokenData
from src.dataloaders.vocab import BOS, EOS, UNK, Vocab, specials

log = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")
_HEADER = b"Source\tTarget"
_HOW = (
    "download lra_release.gz (7.7 GB, https://storage.googleapis.com/long-range-arena/lra_release.gz) and put the "
    "three files of its listops-1000 folder there, or set dataset.source=generated to have the data made in seconds"
)
_SYMBOL_OF = {spelling.encode(): i for i, spelling in enumerate(SYMBOLS[:CLOSE])} | {b"]": CLOSE}


class ListOps(TokenData):
    """Token ids (B, L <= ``l_max``) with ``<eos>`` at the end, 10 classes, 96,000 / 2,000 / 2,000 expressions.

    The vocabulary has 18 entries: ``<pad>``, ``<unk>``, ``<eos>`` and the 15 symbols (ten digits, four operators and
    the closing bracket, written ``X``). Of files they come by falling count in the training split; of generated data in
    this order, so that every length and seed numbers them alike. Opening round brackets of LRA's files, which only
    mirror the tree, are dropped.
    """

    _name_ = "listops"
    d_output = 10
    level = "word"
    class_names = tuple("0123456789")

    def __init__(
        self,
        l_max: int = 2048,
        append_bos: bool = False,
        append_eos: bool = True,
        source: str = "auto",
        n_train: int = 96_000,
        n_val: int = 2_000,
        n_test: int = 2_000,
        generator_seed: int = 0,
        min_length: int = 500,
        max_length: int = 2000,
        data_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """
        Args:
            l_max: longer sequences are cut to this many tokens, ``<bos>`` and ``<eos>`` included.
            source: ``lra`` reads LRA's files, ``generated`` makes the data, ``auto`` makes it if there are no files.
            n_train, n_val, n_test: sizes of generated splits; files are read whole.
            generator_seed: of generated data.
            min_length, max_length: keep generated expressions with min_length < symbols < max_length, by default LRA's.
                Short ones are learnt first and cheaply; the weights then start a run on long ones.
        """
        super().__init__(data_dir, seed)
        if source not in ("auto", "lra", "generated"):
            raise UserError(f"dataset.source is auto, lra or generated, not {source!r}")
        gate.at_least(1 + append_bos + append_eos, l_max=l_max)
        gate.at_least(1, n_train=n_train, n_val=n_val, n_test=n_test)
        self.l_max, self.append_bos, self.append_eos = l_max, append_bos, append_eos
        self.source, self.sizes, self.generator_seed = source, (n_train, n_val, n_test), generator_seed
        self.law = ListOpsSettings(min_length=min_length, max_length=max_length)

    def setup(self) -> None:
        """Open the cache."""
        tensors = self.open_vocab()
        origin = "generated here" if self.generated else f"of Long Range Arena, {self.data_dir}"
        log.info("ListOps: expressions %s", origin)
        self.train, self.val, self.test = (
            RaggedSet(*(tensors[f"{split}_{part}"] for part in ("flat", "ends", "value"))) for split in _SPLITS
        )

    def _tensors(self) -> dict[str, Tensor]:
        build, source = self._choose_source()
        settings = {
            "version": 2 if self.generated else 1,
            "l_max": self.l_max,
            "append_bos": self.append_bos,
            "append_eos": self.append_eos,
            "source": source,
        }
        return cached_tensors(self._name_, settings, lambda: self._encode(build()))

    @property
    def paths(self) -> list[Path]:
        """LRA's files, whether they are there or not."""
        return [self.data_dir / f"basic_{split}.tsv" for split in _SPLITS]

    @property
    def generated(self) -> bool:
        """Whether the expressions are made here instead of read."""
        return self.source == "generated" or (self.source == "auto" and not any(map(Path.is_file, self.paths)))

    def _choose_source(self) -> tuple[Callable[[], list[Expressions]], Any]:
        """A function that returns the three splits, and what identifies them."""
        if self.generated:
            source = {"generator": asdict(self.law), "seed": self.generator_seed, "sizes": self.sizes}
            return self._generate, source
        if self.law != ListOpsSettings():
            raise UserError(
                "dataset.min_length and dataset.max_length are of generated expressions; leave them out, or set "
                "dataset.source=generated"
            )
        if absent := [path.name for path in self.paths if not path.is_file()]:
            raise missing(f"ListOps' {', '.join(absent)}", self.data_dir, _HOW)
        return lambda: [read_tsv(path) for path in self.paths], source_stamp(*self.paths)

    def _generate(self) -> list[Expressions]:
        """Consecutive parts of one stream of distinct expressions, so no expression is in two splits."""
        everything = generate(sum(self.sizes), self.generator_seed, self.law)
        bounds = np.cumsum([0, *self.sizes])
        return [everything.part(int(a), int(b)) for a, b in pairwise(bounds)]

    def _encode(self, splits: Sequence[Expressions]) -> dict[str, Tensor]:
        """Vocabulary ids of every split, cut to ``l_max``, with the special tokens around them."""
        room = self.l_max - self.append_bos - self.append_eos
        special = specials(self.append_bos, self.append_eos)
        vocab = Vocab([*special, *SYMBOLS]) if self.generated else Vocab.from_counts(_counts(splits[0], room), special)
        ids = np.array([vocab.ids.get(spelling, vocab[UNK]) for spelling in SYMBOLS], np.uint8)
        head = np.array([vocab[BOS]] if self.append_bos else [], np.uint8)
        tail = np.array([vocab[EOS]] if self.append_eos else [], np.uint8)
        tensors = {"vocab": vocab.to_tensor()}
        for name, split in zip(_SPLITS, splits, strict=True):
            rows = [np.concatenate([head, ids[expression[:room]], tail]) for expression in split]
            tensors[f"{name}_flat"] = torch.from_numpy(np.concatenate(rows))
            tensors[f"{name}_ends"] = torch.from_numpy(np.cumsum([len(row) for row in rows]))
            tensors[f"{name}_value"] = torch.from_numpy(split.values)
        return tensors


def _counts(expressions: Expressions, room: int) -> dict[str, int]:
    """How often each symbol that comes at all comes in the first ``room`` of every expression."""
    counts = np.zeros(len(SYMBOLS), np.int64)
    for expression in expressions:
        counts += np.bincount(expression[:room], minlength=len(SYMBOLS))
    return {SYMBOLS[i]: int(counts[i]) for i in np.flatnonzero(counts)}


def read_tsv(path: Path) -> Expressions:
    """Expressions of one of LRA's files: a header, then ``expression <TAB> value`` on each line.

    Raises:
        UserError: another header, a symbol that ListOps does not have, a value that is no digit, or no line at all.
    """
    pieces, values = [], []
    with (
        path.open("rb") as file,
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        header = file.readline()
        if header.strip() != _HEADER:
            raise _bad_line(path, 1, "the header is not Source<TAB>Target")
        bar.update(len(header))
        for number, line in enumerate(file, start=2):
            bar.update(len(line))
            try:
                source, target = line.rstrip(b"\r\n").split(b"\t")
                symbols = bytes(map(_SYMBOL_OF.__getitem__, source.translate(None, b"()").split()))
                value = int(target)
            except KeyError as error:
                raise _bad_line(path, number, f"unknown symbol {error.args[0].decode(errors='replace')!r}") from error
            except ValueError as error:
                raise _bad_line(path, number, "not an expression, a tab and a value") from error
            if not symbols or not 0 <= value <= 9:
                raise _bad_line(path, number, "an empty expression or a value that is no digit")
            pieces.append(np.frombuffer(symbols, np.uint8))
            values.append(value)
    if not pieces:
        raise _bad_line(path, 2, "the file ends after its header")
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    return Expressions(np.concatenate(pieces), offsets, np.array(values, np.uint8))


def _bad_line(path: Path, number: int, what: str) -> UserError:
    return UserError(
        f"{path}, line {number}: {what}; the file is damaged or not LRA's ListOps, unpack it again or "
        f"set dataset.source=generated"
    )
