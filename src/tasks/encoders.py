"""Encoders: what the data set delivers -> (B, L, d_model)."""

from __future__ import annotations

from torch import nn

from sdn.errors import UserError

from .base import Shapes


class LinearEncoder(nn.Linear):
    """x (B, L, d_input) -> x W^T + b, (B, L, d_model)."""

    def __init__(self, data: Shapes, d_model: int) -> None:
        if data.n_tokens is not None:
            raise UserError("this data set delivers token ids; choose encoder=embedding")
        super().__init__(data.d_input, d_model)


class EmbeddingEncoder(nn.Embedding):
    """Token ids (B, L) -> (B, L, d_model), rows drawn from N(0, 1); the padding id has a row like any other."""

    def __init__(self, data: Shapes, d_model: int) -> None:
        if data.n_tokens is None:
            raise UserError("this data set delivers numbers, not token ids; choose encoder=linear")
        super().__init__(data.n_tokens, d_model)
