"""Decoders of a task: the modules of :mod:`models.spike.heads`, sized by the data set."""

from __future__ import annotations

from models.spike import heads
from models.spike.heads import Mode, summarise

from .base import Shapes

__all__ = ["RetrievalDecoder", "SequenceDecoder", "StepDecoder", "summarise"]


class SequenceDecoder(heads.SequenceDecoder):
    """(B, L, d_model) -> (B, d_output): summary over time, then a linear layer."""

    def __init__(self, data: Shapes, d_model: int, mode: Mode = "pool", use_lengths: bool = False) -> None:
        super().__init__(d_model, data.d_output, mode, use_lengths)


class StepDecoder(heads.StepDecoder):
    """(B, L, d_model) -> (B, L, d_output): a linear layer at every step."""

    def __init__(self, data: Shapes, d_model: int) -> None:
        super().__init__(d_model, data.d_output)


class RetrievalDecoder(heads.RetrievalDecoder):
    """(2B, L, d_model), first all first texts, then all second ones -> (B, d_output)."""

    def __init__(
        self,
        data: Shapes,
        d_model: int,
        mode: Mode = "pool",
        use_lengths: bool = True,
        nli: bool = True,
        d_hidden: int | None = None,
    ) -> None:
        super().__init__(d_model, data.d_output, mode, use_lengths, nli, d_hidden)
