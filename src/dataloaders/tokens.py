"""What the families of tokens have in common: a vocabulary, and batches padded with ``<pad>`` or read in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from src.dataloaders.base import Batch, SequenceData, collate_tokens
from src.dataloaders.loading import Loader, LoaderOptions, Shard
from src.dataloaders.vocab import PAD, Vocab
from src.dataloaders.windows import TokenWindows, WindowOrder, collate_windows


class TokenData(SequenceData):
    """Sequences of token ids. Subclasses make ``_tensors()``, which holds ``vocab``, and call :meth:`open_vocab`."""

    vocab: Vocab
    level: str = "char"
    """What a token is: ``char``, ``byte`` or ``word`` (:mod:`src.dataloaders.vocab`)."""

    def _tensors(self) -> dict[str, Tensor]:
        raise NotImplementedError

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocab)

    def prepare(self) -> None:
        """Make the vocabulary and the ids, unless that was done before."""
        self._tensors()

    def open_vocab(self) -> dict[str, Tensor]:
        """The tensors of the cache, with ``vocab`` read."""
        tensors = self._tensors()
        self.vocab = Vocab.from_tensor(tensors["vocab"])
        return tensors

    def collate(self, batch: Any) -> Batch:
        """Pad to the longest of the batch."""
        return collate_tokens(batch, pad=self.vocab[PAD])

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"level": self.level}


class TextStream(TokenData):
    """One stream of token ids a split, read in windows: x, y (B, L <= l_max), y the next tokens."""

    stream_names: Sequence[str] = ("train", "val", "test")
    """Names of the streams among the tensors."""

    @property
    def d_output(self) -> int:
        """A prediction is a distribution over the tokens."""
        return len(self.vocab)

    def setup(self) -> None:
        """Open the cache."""
        tensors = self.open_vocab()
        self.train, self.val, self.test = (TokenWindows(tensors[name], self.l_max) for name in self.stream_names)

    def train_loader(self, options: LoaderOptions, shard: Shard, seed: int) -> Loader:
        """Windows of as many rows as samples are trained on at once; ``seed`` has no part, the order is the text's."""
        rows = TokenWindows(self.train.tokens, self.l_max, options.batch_size * shard.world, self.seed)
        order = WindowOrder(rows, options.batch_size, shard)
        return Loader(rows, self.collate, order, options.num_workers, options.pins)

    def collate(self, batch: Any) -> Batch:
        """Stack windows; a short one is filled up with targets that do not count."""
        return collate_windows(batch)
