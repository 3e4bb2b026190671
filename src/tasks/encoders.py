"""Encoders of a task: what the data set delivers -> (B, L, d_model); the modules of :mod:`models.spike.heads`."""

from __future__ import annotations

from models.spike import heads
from sdn.errors import UserError

from .base import Shapes


class LinearEncoder(heads.LinearEncoder):
    """x (B, L, d_input) -> x W^T + b, (B, L, d_model)."""

    def __init__(self, data: Shapes, d_model: int) -> None:
        if data.n_tokens is not None:
            raise UserError("this data set delivers token ids; choose encoder=embedding")
        super().__init__(data.d_input, d_model)


class EmbeddingEncoder(heads.EmbeddingEncoder):
    """Token ids (B, L) -> (B, L, d_model)."""

    def __init__(self, data: Shapes, d_model: int) -> None:
        if data.n_tokens is None:
            raise UserError("this data set delivers numbers, not token ids; choose encoder=linear")
        super().__init__(data.n_tokens, d_model)
