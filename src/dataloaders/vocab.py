"""Vocabularies and character tokenisation: token <-> id tables as plain JSON data.

Ids are given by rule, so that two machines agree on them: first the special tokens in the order ``<pad>`` 0,
``<unk>`` 1, (``<bos>``), ``<eos>``, then the tokens of the training split by falling count, equal counts in
lexicographic order; tokens rarer than ``min_freq`` become ``<unk>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.dataloaders import gate

LEVELS = ("char", "byte", "word")
PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
_CODE_POINTS = 0x110000


class Vocab:
    """Tokens in the order of their ids. ``len(vocab)``, ``token in vocab``, ``vocab[token] -> id``."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(tokens)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise ValueError("a vocabulary cannot hold a token twice")

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], specials: Sequence[str], min_freq: int = 1) -> Vocab:
        """The rule of the module: ``specials``, then the tokens counted at least ``min_freq`` times."""
        frequent = (token for token, n in counts.items() if n >= min_freq and token not in specials)
        return cls([*specials, *sorted(frequent, key=lambda token: (-counts[token], token))])

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self.ids

    def __getitem__(self, token: str) -> int:
        return self.ids[token]

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of ``tokens``; an unknown one is ``<unk>``, or a KeyError where the vocabulary has none."""
        if (unknown := self.ids.get(UNK)) is None:
            return [self.ids[token] for token in tokens]
        return [self.ids.get(token, unknown) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens of ``ids``."""
        return [self.tokens[int(i)] for i in ids]

    @property
    def dtype(self) -> torch.dtype:
        """The smallest integer type of torch that holds every id."""
        return torch.uint8 if len(self) <= 2**8 else torch.int16 if len(self) <= 2**15 else torch.int32

    def to_json(self) -> str:
        """A JSON list of the tokens, in the order of their ids."""
        return json.dumps(self.tokens, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocab:
        """Inverse of :meth:`to_json`."""
        return cls(json.loads(text))

    def to_tensor(self) -> Tensor:
        """:meth:`to_json` in UTF-8 as a uint8 tensor: kept in the file of the ids it belongs to, it cannot be lost or
        mixed up."""
        return torch.tensor(list(self.to_json().encode("utf-8", "surrogatepass")), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, data: Tensor) -> Vocab:
        """Inverse of :meth:`to_tensor`."""
        return cls.from_json(data.numpy().tobytes().decode("utf-8", "surrogatepass"))


def tokens_of(text: str, level: str) -> Sequence[str]:
    """The tokens of a text: its characters, its bytes in UTF-8 (byte b as the character of code point b), or its words
    between blanks."""
    if level == "word":
        return text.split()
    return as_bytes(text) if level == "byte" else text


def text_of(tokens: Iterable[str], level: str) -> str:
    """The text that tokens stand for; ``<eos>`` is a new line. Inverse of :func:`tokens_of` up to blanks of words."""
    if level == "word":
        return " ".join("\n" if token == EOS else token for token in tokens)
    joined = "".join("\n" if token == EOS else token for token in tokens)
    return joined.encode("latin-1", "replace").decode("utf-8", "replace") if level == "byte" else joined


def as_bytes(text: str) -> str:
    """UTF-8 as a string of the code points 0 .. 255."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def specials(append_bos: bool, append_eos: bool) -> list[str]:
    """The special tokens of a classification task in the order of their ids."""
    return [PAD, UNK, *([BOS] if append_bos else []), *([EOS] if append_eos else [])]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def count_characters(texts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How often each character occurs in ``(text, times the text counts)``."""
    totals = np.zeros(_CODE_POINTS, dtype=np.int64)
    for text, times in texts:
        if text and times:
            found, counts = np.unique(_code_points(text), return_counts=True)
            totals[found] += counts * times
    return {chr(code): int(totals[code]) for code in np.flatnonzero(totals)}


@dataclass(frozen=True)
class CharFormat:
    """How a text becomes characters: cut to ``l_max`` tokens, ``<bos>`` and ``<eos>`` included."""

    l_max: int
    append_bos: bool = False
    append_eos: bool = True

    def __post_init__(self) -> None:
        least = self.append_bos + self.append_eos + 1
        gate.at_least(least, l_max=self.l_max)

    def clip(self, text: str) -> str:
        """The characters that are used of ``text``."""
        return text[: self.l_max - self.append_bos - self.append_eos]

    def vocab(self, texts: Iterable[tuple[str, int]], min_freq: int = 1) -> Vocab:
        """Vocabulary of ``(text already clipped, times it counts)``."""
        return Vocab.from_counts(count_characters(texts), specials(self.append_bos, self.append_eos), min_freq)

    def encode(self, texts: Iterable[str], vocab: Vocab) -> tuple[Tensor, Tensor]:
        """Ids of all ``texts`` one after the other (n_tokens,) in ``vocab.dtype``, and where each ends (n_texts,)."""
        table = np.full(_CODE_POINTS, vocab[UNK], dtype=torch.empty(0, dtype=vocab.dtype).numpy().dtype)
        for token, i in vocab.ids.items():
            if len(token) == 1:
                table[ord(token)] = i
        head = np.array([vocab[BOS]] if self.append_bos else [], dtype=table.dtype)
        tail = np.array([vocab[EOS]] if self.append_eos else [], dtype=table.dtype)
        pieces, ends, end = [], [], 0
        for text in texts:
            piece = table[_code_points(self.clip(text))]
            pieces += [head, piece, tail]
            end += len(head) + len(piece) + len(tail)
            ends.append(end)
        flat = np.concatenate(pieces) if pieces else np.empty(0, table.dtype)
        return torch.from_numpy(flat), torch.tensor(ends, dtype=torch.int64)
