"""Text of yours for language modelling, by character, byte or word: a file or a folder of text files, no code needed.

A single file is cut into a head to train on, a middle to choose by and an end to test on, at ends of lines. A folder
may hold ``train.txt``, ``valid.txt`` and ``test.txt``; otherwise its files (``*.txt``, at any depth) are documents that
are drawn for the splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.cache import cached_tensors
from src.dataloaders.files import existing, files_below, stamp
from src.dataloaders.splits import SPLITS, check_shares, divide, split_named
from src.dataloaders.tokens import TextStream
from src.dataloaders.vocab import EOS, LEVELS, UNK, Vocab, tokens_of


class Corpus(TextStream):
    """x, y (B, L <= l_max), y the next tokens.

    Ids are given by falling count in the training text, equal counts in lexicographic order. ``<eos>`` ends a document,
    by word also a line. ``<unk>`` stands for what the training text does not hold, or holds less than ``min_freq``
    times; by byte there is none, as every byte has an id.
    """

    _name_ = "corpus"

    def __init__(
        self,
        path: str,
        level: str = "char",
        l_max: int = 256,
        min_freq: int = 1,
        val_split: float = 0.1,
        test_split: float = 0.1,
        seed: int = 42,
    ) -> None:
        """
        Args:
            path: the file or folder.
            level: what a token is: ``char``, ``byte`` or ``word`` (between blanks).
            l_max: tokens a window.
            val_split, test_split: shares of a single file, or of the files of a folder that names no splits.
            seed: of the draw of files, and of the rotation of the training text every epoch.
        """
        super().__init__(path, seed)
        gate.one_of(LEVELS, level=level)
        gate.at_least(1, l_max=l_max, min_freq=min_freq)
        check_shares(val_split=val_split, test_split=test_split)
        self.level, self.l_max, self.min_freq = level, l_max, min_freq
        self.val_split, self.test_split = val_split, test_split

    def _tensors(self) -> dict[str, Tensor]:
        path = existing(self._data_dir)
        files = files_below(path, (".txt",)) if path.is_dir() else [path]
        settings = {
            "version": 1,
            "source": stamp(path, files),
            "level": self.level,
            "min_freq": self.min_freq,
            "split": [self.val_split, self.test_split, self.seed],
        }
        return cached_tensors(self._name_, settings, lambda: self._number(self._documents(path, files)))

    def _documents(self, path: Path, files: Sequence[Path]) -> dict[str, list[str]]:
        """The texts of every split."""
        texts = [read_text(file) for file in tqdm(files, desc=path.name, unit="file", disable=None)]
        if not path.is_dir():
            return dict(zip(SPLITS, ([part] for part in self._cut(texts[0], path)), strict=True))
        given = [split_named(file.stem) for file in files]
        if None in given:
            part = divide(None, torch.zeros(len(files)), self.val_split, self.test_split, self.seed)
        else:
            part = divide(torch.tensor(given), torch.zeros(len(files)), 0, 0, self.seed)
        return {name: [texts[i] for i in sorted(rows.tolist())] for name, rows in zip(SPLITS, part, strict=True)}

    def _cut(self, text: str, path: Path) -> list[str]:
        """Head, middle and end of a text, cut after a line or, where there is only one, after a blank."""
        ends = [1 - self.val_split - self.test_split, 1 - self.test_split]
        mark = "\n" if text.count("\n") > 20 else " "
        places = [text.find(mark, int(len(text) * end)) + 1 for end in ends]
        parts = [text[: places[0]], text[places[0] : places[1]], text[places[1] :]]
        if min(places) == 0 or any(not part.strip() for part in parts):
            raise UserError(
                f"{path} is too short to be cut into training, validation and test; give a longer text, other shares "
                "(dataset.val_split, dataset.test_split) or a folder with train.txt, valid.txt and test.txt"
            )
        return parts

    def _number(self, texts: dict[str, list[str]]) -> dict[str, Tensor]:
        streams = {name: [self._pieces(text) for text in parts] for name, parts in texts.items()}
        vocab = self._vocab(streams["train"])
        tensors = {"vocab": vocab.to_tensor()}
        for name, pieces in streams.items():
            tensors[name] = torch.cat([_ids(piece, vocab) for document in pieces for piece in document])
            if len(tensors[name]) < 3:
                raise UserError(f"the {name} text is too short: {len(tensors[name])} tokens")
        return tensors

    def _pieces(self, text: str) -> list[Sequence[str]]:
        """The tokens of a document in some pieces: ``<eos>`` after each line of words, else after the document."""
        if self.level == "word":
            return [[*tokens_of(line, "word"), EOS] for line in text.splitlines()]
        return [tokens_of(text, self.level), [EOS]]

    def _vocab(self, documents: Iterable[list[Sequence[str]]]) -> Vocab:
        counts = Counter[str]()
        for document in documents:
            for piece in document:
                counts.update(piece)
        kept = {token: n for token, n in counts.items() if n >= self.min_freq}
        kept[EOS] = counts[EOS]
        if self.level == "byte":
            kept |= {chr(byte): counts[chr(byte)] for byte in range(256)}
        else:
            kept[UNK] = kept.get(UNK, 0) + sum(n for token, n in counts.items() if token not in kept)
        return Vocab(sorted(kept, key=lambda token: (-kept[token], token)))


def _ids(tokens: Sequence[str], vocab: Vocab) -> Tensor:
    kind = torch.empty(0, dtype=vocab.dtype).numpy().dtype
    return torch.from_numpy(np.array(vocab.encode(tokens), dtype=kind))


def read_text(file: Path) -> str:
    """A text file in UTF-8.

    Raises:
        UserError: it is not, or is empty.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text (byte {error.start}: {error.reason}); convert it") from error
    if not text.strip():
        raise UserError(f"{file} is empty; leave it out")
    return text
