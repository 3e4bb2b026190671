"""Language modelling: adaptive embedding in, tied adaptive softmax out, perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.spike.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from sdn.errors import UserError

from .base import Shapes, Sums, Task


class LanguageModel(Task):
    """Hidden states (B, L, d_model) and the next tokens y (B, L) -> the summed negative log-likelihood, in nats.

    Targets below 0 (positions that fill up a window) and samples with ``z["weight"]`` 0 do not count. Perplexity is
    that of the corpus, exp(sum of all -log p / number of tokens). With ``batch_perplexity`` it is as released: the mean
    over batches of exp(mean of the batch), which is usually more and lets a short last window weigh as much as a full
    one.
    """

    causal = True

    def __init__(
        self,
        data: Shapes,
        d_model: int,
        cutoffs: Sequence[int] | None = None,
        div_val: int = 4,
        dropemb: float = 0.0,
        dropsoft: float = 0.0,
        init_scale: float = 0.5,
        bias_scale: float = 1.0,
        batch_perplexity: bool = False,
    ) -> None:
        super().__init__()
        if data.n_tokens is None:
            raise UserError("this data set delivers numbers, not tokens; task=lm wants pipeline=corpus, wt103 or wt2")
        cutoffs = default_cutoffs(data.n_tokens, d_model, div_val) if cutoffs is None else cutoffs
        self.encoder = AdaptiveEmbedding(data.n_tokens, d_model, cutoffs, div_val, dropemb, init_scale)
        self.decoder = nn.Identity()  # the softmax wants its targets: it is a part of the loss
        self.head = AdaptiveSoftmax(self.encoder, dropsoft, bias_scale)
        self.batch_perplexity = batch_perplexity

    def forward(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Sums:
        """Sums of ``loss`` over the tokens that count.

        Raises:
            UserError: the data are no text to be continued.
        """
        if y.shape != output.shape[:2]:
            raise UserError("task=lm predicts the next token of a text; it wants pipeline=corpus, wt103 or wt2")
        counts = y >= 0
        if (weight := z.get("weight")) is not None:
            counts &= weight.to(y.device).unsqueeze(1) > 0
        loss = -self.head(output[counts], y[counts]).sum()
        n = counts.sum().to(loss.dtype)
        sums = {"loss": (loss, n)}
        if self.batch_perplexity:
            any_counts = (n > 0).to(loss.dtype)
            sums["ppl"] = (torch.exp(loss.detach() / n.clamp(min=1)) * any_counts, any_counts)
        return sums

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., n_tokens) of the next token after ``hidden`` (..., d_model)."""
        return self.head.log_prob(hidden)

    def report(self, means: dict[str, float]) -> dict[str, float]:
        """Add ``ppl``, the perplexity of the corpus."""
        if self.batch_perplexity or "loss" not in means:
            return means
        return {**means, "ppl": math.exp(means["loss"]) if means["loss"] < 700 else math.inf}


def default_cutoffs(n_tokens: int, d_model: int, div_val: int) -> list[int]:
    """Clusters in proportion to those of WikiText-103: the first 7.5, 15 and 75 % of a vocabulary sorted by frequency,
    as many as leave the rarest tokens a width; of a small vocabulary only the rarest token is apart."""
    if n_tokens < 5000:
        return [n_tokens - 1]
    edges = [round(n_tokens * share) for share in (0.075, 0.15, 0.75)]
    while len(edges) > 1 and d_model // div_val ** len(edges) < 4:
        edges.pop(0)
    return edges
