"""The same few batches in every epoch, for ``trainer.overfit_batches``: the usual first check of a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from src.dataloaders.loading import Loader


class SameBatches:
    """The first batches of a loader's first epoch, kept in memory, in the same order in every epoch.

    Args:
        wanted: their number, or the fraction of the epoch that they are.
    """

    def __init__(self, loader: Loader, wanted: int | float) -> None:
        self.loader = loader
        self.number = min(wanted, len(loader)) if isinstance(wanted, int) else int(len(loader) * wanted)
        self._length = self.number if isinstance(wanted, int) else len(loader)  # the trainer takes its fraction of it
        self._kept: list[Any] = []
        self._start = self._delivered = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if not self._kept:
            for batch in self.loader:
                self._kept.append(batch)
                if len(self._kept) == self.number:
                    break
        self._delivered, self._start = self._start, 0
        for batch in self._kept[self._delivered :]:
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands."""
        return {"batch": self._delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there; a finished epoch starts anew."""
        self._start = state["batch"] if state["batch"] < self.number else 0
