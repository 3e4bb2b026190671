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


class ConvEncoder(heads.ConvEncoder):
    """Token ids (B, L) or samples (B, L, d_input) -> (B, L / stride, d_model), one vector a window."""

    def __init__(
        self,
        data: Shapes,
        d_model: int,
        d_embed: int = 32,
        kernel: int = 8,
        stride: int = 4,
        dropout: float = 0.0,
        jitter: bool = False,
        activation: str = "none",
        pool: bool = False,
    ) -> None:
        d_input = data.d_input if data.n_tokens is None else None
        super().__init__(d_model, data.n_tokens, d_input, d_embed, kernel, stride, dropout, jitter, activation, pool)
