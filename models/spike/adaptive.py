"""Adaptive input embedding (Baevski and Auli, 2019) and the adaptive softmax tied to it (Grave et al., 2017).

Words, sorted by frequency, fall into clusters at ``cutoffs``; cluster i has embeddings of width
d_i = d_model / div_val^i, wide for the frequent words and narrow for the many rare ones:

    embedding   e(w) = sqrt(d_model) · P_i · dropout(E_i[w])                    E_i (n_i, d_i), P_i (d_model, d_i)
    head        log p(w), log p(cluster)  =  log softmax([E_0; C] · dropout(P'ᵀ y) + b)             over cluster 0
    tail i      log p(w) = log p(cluster i) + log softmax(E_i · dropout(P_iᵀ y) + b_i)              over cluster i > 0

E_i and P_i, i > 0, are the same parameters in both; the head has a projection P' (d_model, d_model) of its own, which
starts at zero, as do the cluster rows C.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdn.errors import UserError
from sdn.typed import Modules


class AdaptiveEmbedding(nn.Module):
    """Token ids (...) -> (..., d_model)."""

    def __init__(
        self,
        n_tokens: int,
        d_model: int,
        cutoffs: Sequence[int],
        div_val: int = 4,
        dropout: float = 0.0,
        init_scale: float = 0.5,
    ) -> None:
        """``init_scale``: the standard deviation of E_i is init_scale / sqrt(d_i), of P_i init_scale / sqrt(d_model).

        Raises:
            UserError: the cutoffs do not rise inside the vocabulary, or leave a cluster no width.
        """
        super().__init__()
        edges = [0, *cutoffs, n_tokens]
        if len(edges) < 3 or any(low >= high for low, high in itertools.pairwise(edges)):
            raise UserError(
                f"the cutoffs must rise within the {n_tokens} words of the vocabulary, not {list(cutoffs)}; "
                "set some that do, such as those which split it into 10 %, 30 % and 60 %"
            )
        widths = [d_model // div_val**i for i in range(len(edges) - 1)]
        if widths[-1] < 1:
            raise UserError(f"div_val={div_val} leaves the rarest words no width at d_model={d_model}")
        self.n_tokens, self.d_model, self.cutoffs, self.div_val = n_tokens, d_model, list(cutoffs), div_val
        self.bounds = list(itertools.pairwise(edges))
        self.dropout = nn.Dropout(dropout)
        self.words = Modules(
            nn.Embedding(high - low, width) for (low, high), width in zip(self.bounds, widths, strict=True)
        )
        self.projections = nn.ParameterList(nn.Parameter(torch.empty(d_model, width)) for width in widths)
        for words, projection in zip(self.words, self.projections, strict=True):
            nn.init.normal_(words.weight, std=init_scale * words.embedding_dim**-0.5)
            nn.init.normal_(projection, std=init_scale * d_model**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises IndexError for an id outside the vocabulary."""
        flat = tokens.reshape(-1)
        rows, pieces = [], []
        # Clusters without a token take part as well, so that every parameter has a gradient (DDP waits for all).
        for (low, high), words, projection in zip(self.bounds, self.words, self.projections, strict=True):
            rows.append(torch.nonzero((flat >= low) & (flat < high)).flatten())
            pieces.append(F.linear(self.dropout(words(flat[rows[-1]] - low)), projection))
        order = torch.cat(rows)
        if len(order) != len(flat):
            raise IndexError(f"token ids must lie in 0 .. {self.n_tokens - 1}")
        embedded = torch.cat(pieces)[torch.argsort(order)]
        return embedded.reshape(*tokens.shape, self.d_model) * math.sqrt(self.d_model)


class AdaptiveSoftmax(nn.AdaptiveLogSoftmaxWithLoss):
    """Log-probabilities of the words, tied to an :class:`AdaptiveEmbedding`.

    torch's module has the routing of targets to clusters, the normalisation and the prediction, and they are used as
    they are. Its layers do not fit: head words and clusters share one matrix, which therefore cannot be tied to an
    embedding, the tails have no biases, and there is no head projection and no dropout before the output layer. So
    head and tails are replaced by :class:`_Head` and :class:`_Tail`. (The released code keeps the cluster logits in
    reverse order; their rows start equal, so that is only another name for them.)

    The embedding's parameters are borrowed, not registered again: they stand once in ``parameters()`` and checkpoints,
    and the embedding must be part of the model as well.
    """

    head: _Head  # type: ignore[assignment]  # in place of torch's linear layer
    tail: Modules[_Tail]

    def __init__(self, embedding: AdaptiveEmbedding, dropout: float = 0.0, bias_scale: float = 1.0) -> None:
        """``bias_scale``: word biases start uniform in ± bias_scale / sqrt(d_model)."""
        # On "meta" torch's own layers, replaced below, cost nothing.
        super().__init__(
            embedding.d_model, embedding.n_tokens, embedding.cutoffs, div_value=embedding.div_val, device="meta"
        )
        scale = bias_scale * embedding.d_model**-0.5
        self.head = _Head(embedding, dropout, scale)
        self.tail = Modules(_Tail(embedding, i + 1, dropout, scale) for i in range(self.n_clusters))

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        """Log-probability (N,) of ``target`` (N,) given ``hidden`` (N, d_model), in the parameters' precision."""
        output = super().forward(hidden.to(self.head.bias.dtype), target).output
        if torch.is_grad_enabled():  # torch skips clusters without a target; their biases still need a gradient in DDP
            output = output + 0.0 * sum(tail.bias.sum() for tail in self.tail)
        return output

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., n_tokens) of every word given ``hidden`` (..., d_model)."""
        flat = hidden.reshape(-1, self.in_features).to(self.head.bias.dtype)
        return super().log_prob(flat).reshape(*hidden.shape[:-1], self.n_classes)


class _Tied(nn.Module):
    """Logits of the words of cluster i in the parameters' precision, also under autocast: the normalisation needs it.

    E_i and P_i belong to the embedding, the biases live here.
    """

    def __init__(self, embedding: AdaptiveEmbedding, cluster: int, dropout: float, scale: float) -> None:
        super().__init__()
        self._embedding, self._cluster = (embedding,), cluster  # in a tuple: not registered as a submodule
        self.dropout = nn.Dropout(dropout)
        low, high = embedding.bounds[cluster]
        self.bias = nn.Parameter(torch.empty(high - low).uniform_(-scale, scale))

    @property
    def words(self) -> Tensor:
        """E_i (n_i, d_i)."""
        return self._embedding[0].words[self._cluster].weight


class _Tail(_Tied):
    def forward(self, hidden: Tensor) -> Tensor:
        projection = self._embedding[0].projections[self._cluster]
        return F.linear(self.dropout(hidden @ projection), self.words, self.bias).to(self.bias.dtype)


class _Head(_Tied):
    def __init__(self, embedding: AdaptiveEmbedding, dropout: float, scale: float) -> None:
        super().__init__(embedding, 0, dropout, scale)
        d_model, n_clusters = embedding.d_model, len(embedding.cutoffs)
        self.projection = nn.Parameter(torch.zeros(d_model, d_model))
        self.cluster_weight = nn.Parameter(torch.zeros(n_clusters, d_model))
        self.cluster_bias = nn.Parameter(torch.zeros(n_clusters))

    def forward(self, hidden: Tensor) -> Tensor:
        weight = torch.cat([self.words, self.cluster_weight])
        bias = torch.cat([self.bias, self.cluster_bias])
        return F.linear(self.dropout(hidden @ self.projection), weight, bias).to(self.bias.dtype)
