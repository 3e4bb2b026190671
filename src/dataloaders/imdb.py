"""Text (Long Range Arena): is a film review positive? IMDb reviews read character by character.

The training reviews are split into training and validation, an equal share of each class, and the test reviews are
seen once, at the end. The released code had no validation split: with ``val_split: 0`` models are chosen on the test
reviews, as LRA does and as the published figure was obtained.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Subset

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.base import RaggedSet, check_sizes, load_hub, stratified_split
from src.dataloaders.cache import cached_tensors, source_stamp
from src.dataloaders.tokens import TokenData
from src.dataloaders.vocab import CharFormat


class IMDB(TokenData):
    """25,000 training and 25,000 test reviews (Maas et al., 2011) as character ids (B, L <= ``l_max``).

    The vocabulary counts the characters of all 25,000 training texts, cut to ``l_max``; the validation texts are
    among them, their labels play no part. Tokenised once into one byte a character.
    """

    _name_ = "imdb"
    d_output = 2
    class_names = ("negative", "positive")

    def __init__(
        self,
        l_max: int = 4096,
        min_freq: int = 15,
        append_bos: bool = False,
        append_eos: bool = True,
        val_split: float = 0.1,
        data_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """``val_split``: share of the training reviews held out for validation; 0 validates on the test reviews."""
        super().__init__(data_dir, seed)
        if not 0 <= val_split < 1:
            raise UserError(
                f"dataset.val_split is a share of the training reviews, 0 <= val_split < 1, not {val_split}"
            )
        gate.at_least(1, min_freq=min_freq)
        self.format = CharFormat(l_max, append_bos, append_eos)
        self.l_max, self.min_freq, self.val_split = l_max, min_freq, float(val_split)

    def setup(self) -> None:
        """Open the cache and split."""
        tensors = self.open_vocab()
        full, test = (
            RaggedSet(*(tensors[f"{split}_{part}"] for part in ("flat", "ends", "label")))
            for split in ("train", "test")
        )
        # The files are sorted by class; in random order the first batches of an evaluation are a fair sample.
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(self.seed))
        self.test = Subset(test, order.tolist())
        self.train, self.val = full, self.test
        if self.val_split:
            parts = stratified_split(full.y, [self.val_split], self.seed)
            self.train, self.val = (Subset(full, part.tolist()) for part in parts)

    def verify(self) -> None:
        """Also compare the number of reviews with the published one."""
        super().verify()
        train = len(self.train) + (len(self.val) if self.val_split else 0)
        check_sizes("IMDb", self.data_dir, {"train": train, "test": len(self.test)}, {"train": 25_000, "test": 25_000})

    def _tensors(self) -> dict[str, Tensor]:
        settings = {
            "version": 1,
            "l_max": self.l_max,
            "min_freq": self.min_freq,
            "append_bos": self.format.append_bos,
            "append_eos": self.format.append_eos,
            "source": source_stamp(*sorted(self.data_dir.rglob("*.parquet"))),
        }
        return cached_tensors(self._name_, settings, self._build)

    def _build(self) -> dict[str, Tensor]:
        hub = load_hub("IMDb", [self.data_dir], "stanfordnlp/imdb", "84 MB")
        for split in ("train", "test"):
            if split not in hub or not {"text", "label"} <= set(hub[split].column_names):
                raise UserError(
                    f"IMDb in {self.data_dir} lacks the {split} split with columns text and label; "
                    "download stanfordnlp/imdb again"
                )
        where = {split: gate.row_of(split, self.data_dir) for split in ("train", "test")}

        def texts(split: str) -> Iterator[str]:
            return gate.hub_texts(hub[split], "text", where[split])

        vocab = self.format.vocab(((self.format.clip(text), 1) for text in texts("train")), self.min_freq)
        tensors = {"vocab": vocab.to_tensor()}
        for split in ("train", "test"):
            flat, ends = self.format.encode(texts(split), vocab)
            labels = gate.class_ids(hub[split]["label"], self.d_output, where[split])
            tensors |= {f"{split}_flat": flat, f"{split}_ends": ends, f"{split}_label": labels}
        return tensors
