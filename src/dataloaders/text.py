"""Text of yours to be classified, by character, byte or word, no code needed.

A folder with a folder of text files for each class (``reviews/good/1.txt``), in folders ``train``, ``val`` and ``test``
if the splits are given (``reviews/train/good/1.txt``). Or a table (CSV, TSV, parquet, or a folder of them named for
splits, ``train.csv``, ``test.csv``) with a column of texts and one of labels.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.corpus import read_text
from src.dataloaders.family import Family, Samples
from src.dataloaders.files import files_below
from src.dataloaders.splits import split_named
from src.dataloaders.table import ENDINGS, folder_splits, read_table
from src.dataloaders.vocab import EOS, LEVELS, PAD, UNK, Vocab, tokens_of

_SPECIALS = (PAD, UNK, EOS)


class Text(Family):
    """x (B, L <= l_max) token ids, ``<eos>`` at the end, padded with ``lengths``.

    The vocabulary is ``<pad>``, ``<unk>``, ``<eos>`` and the tokens of all texts that nobody gave to validation or
    test, by falling count; rarer ones than ``min_freq`` are ``<unk>``.
    """

    _name_ = "text"
    one_target = (
        "dataset=text has one label, or number, a text; for one a token keep token ids and labels as arrays: "
        "pipeline=arrays encoder=embedding"
    )

    def __init__(
        self,
        path: str,
        level: str = "char",
        column: str = "text",
        target: str = "label",
        split: str | None = None,
        targets: str = "classes",
        l_max: int | None = 4096,
        min_freq: int = 1,
        val_split: float = 0.1,
        test_split: float = 0.2,
        seed: int = 42,
    ) -> None:
        """
        Args:
            level: what a token is: ``char``, ``byte`` or ``word`` (between blanks).
            column, target, split: columns of a table: the texts, their labels, and train, val, test if given.
            l_max: longer texts are cut to this many tokens, ``<eos>`` included.

        The others are :class:`Family`'s.
        """
        super().__init__(path, targets, False, l_max, "none", val_split, test_split, seed)
        gate.one_of(LEVELS, level=level)
        gate.at_least(1, min_freq=min_freq)
        gate.at_least(2, l_max=l_max)
        self.level, self.column, self.target, self.split, self.min_freq = level, column, target, split, min_freq

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("level", "column", "target", "split", "min_freq")}

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"level": self.level}

    def sources(self) -> list[Path]:
        path = self.path
        return files_below(path, (".txt", *ENDINGS)) if path.is_dir() else [path]

    def read(self) -> Samples:
        files, root = self.sources(), self.path
        if any(file.suffix.lower() in ENDINGS for file in files):
            tables = [(file, read_table(file)) for file in files if file.suffix.lower() in ENDINGS]
            texts, labels, places, split = self._from_tables(tables)
        else:
            if not root.is_dir():
                raise UserError(f"{root} is one text; for language modelling choose pipeline=corpus")
            texts = [read_text(file) for file in tqdm(files, desc=root.name, unit="text", disable=None)]
            labels, split = [file.parent.name for file in files], folder_splits(files, root)
            places = [file.relative_to(root).as_posix() for file in files]
        return encoded(texts, labels, lambda i: places[i], split, self.level, self.cut_to, self.min_freq)

    def _from_tables(self, tables: list[tuple[Path, pd.DataFrame]]) -> tuple[list[str], list[Any], list[str], Any]:
        texts, labels, places, split = [], [], [], []
        of_files = [split_named(file.stem) for file, _ in tables]
        if len(tables) > 1 and None in of_files:
            raise UserError(f"{tables[of_files.index(None)][0]} is named for no split; name files train, val and test")
        for (file, table), part in zip(tables, of_files, strict=True):
            where, names = gate.row_of(file.name), list(table.columns)
            gate.column(names, self.column, "dataset.column", file)
            gate.column(names, self.target, "dataset.target", file)
            texts += gate.texts(table[self.column].tolist(), where)
            labels += table[self.target].tolist()
            places += [where(i) for i in range(len(table))]
            if self.split is not None:
                words = table[gate.column(names, self.split, "dataset.split", file)].tolist()
                split += [split_named(word) for word in words]
                if None in split:
                    odd = words[split.index(None) - len(split) + len(words)]
                    raise UserError(f"{file}: {self.split} is {odd!r}; it is train, val or test")
            elif len(tables) > 1:
                split += [part] * len(table)
        return texts, labels, places, split or None


def encoded(
    texts: list[str],
    labels: list[Any],
    where: gate.Where,
    split: list[int] | None,
    level: str,
    l_max: int | None,
    min_freq: int,
) -> Samples:
    """Texts as ids of at most ``l_max`` tokens, the last of them ``<eos>``."""
    room = None if l_max is None else l_max - 1
    pieces = [tokens_of(text if room is None or level != "char" else text[:room], level)[:room] for text in texts]
    counts = Counter[str]()
    for i, piece in enumerate(pieces):
        if split is None or split[i] == 0:
            counts.update(piece)
    vocab = Vocab.from_counts(counts, _SPECIALS, min_freq)
    kind = np.int16 if len(vocab) < 2**15 else np.int32
    x = [np.array([*vocab.encode(piece), vocab[EOS]], kind) for piece in pieces]
    return Samples(x, labels, where, split, vocab.tokens, facts={"level": level})
