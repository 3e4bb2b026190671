"""What stands before and after the backbone: encoders to ``(B, L, D)`` and decoders from it.

A decoder that summarises time keeps a running :class:`Summary`, so that a stream has logits after every sample:
after t samples they equal the logits of the first t samples run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdn.errors import UserError

from .gate import check_input
from .lengths import check_lengths, real_steps

Mode = Literal["pool", "last"]


class LinearEncoder(nn.Linear):
    """x (B, L, d_input) -> x W^T + b, (B, L, d_model)."""

    def __init__(self, d_input: int, d_model: int) -> None:
        super().__init__(d_input, d_model)


class EmbeddingEncoder(nn.Embedding):
    """Token ids (B, L) -> (B, L, d_model), rows drawn from N(0, 1); the padding id has a row like any other."""

    def __init__(self, n_tokens: int, d_model: int) -> None:
        super().__init__(n_tokens, d_model)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


class Windows(NamedTuple):
    """Where a stream stands between two windows of a :class:`ConvEncoder`."""

    recent: Tensor
    """The last ``kernel`` samples or rows of the embedding, ``(B, kernel, e)``, zero before the first."""
    total: Tensor
    """Sum of the windows since the last whole stride, ``(B, D)``; 0 without ``pool``."""
    count: int  # type: ignore[assignment]  # as in Summary
    """Samples since the last whole stride."""


class ConvEncoder(nn.Module):
    """Windows instead of samples: one vector for every ``stride`` samples, (B, ⌈L / stride⌉, d_model).

    Window i ends with sample i: ``w_i = f(Σ_k W_k e_{i - kernel + 1 + k} + b)``, k < kernel, where ``e`` are rows of
    an embedding (``n_tokens``, width ``d_embed``) or the samples themselves (``d_input``), and 0 outside the sequence,
    padding after ``lengths`` included; f is the identity, "relu" or "gelu". Of every ``stride`` windows

    - the last goes on, ``h_t = w_{(t + 1) stride - 1}``, or
    - with ``pool`` their mean, ``h_t = Σ_j w_{t stride + j} / stride``, j < stride: then it does not matter where in a
      group of samples a word stands.

    The backbone runs over a sequence ``stride`` times shorter.

    Raises:
        UserError: without ``pool``, ``kernel`` is shorter than ``stride``, which would skip samples; or an option is
            out of range.
    """

    def __init__(
        self,
        d_model: int,
        n_tokens: int | None = None,
        d_input: int | None = None,
        d_embed: int = 32,
        kernel: int = 8,
        stride: int = 4,
        dropout: float = 0.0,
        jitter: bool = False,
        activation: str = "none",
        pool: bool = False,
    ) -> None:
        super().__init__()
        if stride < 1 or kernel < 1:
            raise UserError(f"stride and kernel must be at least 1, not {stride} and {kernel}")
        if not pool and kernel < stride:
            raise UserError(f"windows of {kernel} samples, one every {stride}, would skip some; set pool or kernel")
        if (n_tokens is None) == (d_input is None):
            raise UserError("a ConvEncoder reads tokens or numbers: give one of n_tokens and d_input")
        if d_embed < 1:
            raise UserError(f"d_embed must be at least 1, not {d_embed}")
        if not 0 <= dropout < 1:
            raise UserError(f"the encoder's dropout must be at least 0 and below 1, not {dropout}")
        if jitter and not pool and kernel < 2 * stride - 1:
            raise UserError(
                f"jitter moves windows by up to stride - 1 samples, so kernel must be at least 2 stride - 1 "
                f"= {2 * stride - 1} for none to be lost, not {kernel}"
            )
        if activation not in ACTIVATIONS:
            raise UserError(f"the encoder's activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.activation = ACTIVATIONS[activation]
        self.kernel, self.stride, self.pool, self.dropout, self.jitter = kernel, stride, pool, dropout, jitter
        self.embed = None if n_tokens is None else nn.Embedding(n_tokens, d_embed)
        self.conv = nn.Conv1d(d_embed if d_input is None else d_input, d_model, kernel, 1 if pool else stride)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Ids (B, L) or samples (B, L, d_input), of which the first ``lengths (B,)`` count -> (B, ⌈L / stride⌉, D).

        In training each sample is silenced with probability ``dropout``, all its channels at once, and with ``jitter``
        the windows of a batch lie 0 to stride - 1 samples later, at random: where a word falls into them is chance.
        """
        B, L = x.shape[:2]
        e = x if self.embed is None else self.embed(x)
        if lengths is not None:
            e = e.masked_fill(~real_steps(lengths, L, x.device).unsqueeze(-1), 0)
        if self.training and self.dropout:
            keep = 1 - self.dropout
            e = e * (torch.bernoulli(e.new_full((B, L, 1), keep)) / keep)
        late = int(torch.randint(self.stride, ())) if self.training and self.jitter else 0
        before = self.kernel - (1 if self.pool else self.stride) - late
        w = self.activation(self.conv(F.pad(e.transpose(1, 2), (before, -L % self.stride + late))))
        return (F.avg_pool1d(w, self.stride) if self.pool else w).transpose(1, 2)

    def shorten(self, lengths: Tensor | int) -> Tensor | int:
        """How many windows hold a sample of sequences of these lengths: ⌈lengths / stride⌉."""
        return (lengths + self.stride - 1) // self.stride

    def step(self, x: Tensor, state: Windows | None = None) -> tuple[Tensor | None, Windows]:
        """One sample ``(B, d_input)`` or id ``(B,)`` -> ``h_t (B, D)`` after every ``stride``-th one, else None.

        What :meth:`forward` computes in evaluation mode, for a sequence of whole strides.
        """
        e = x if self.embed is None else self.embed(x)
        if state is None:
            state = Windows(e.new_zeros(len(e), self.kernel, e.shape[1]), e.new_zeros(len(e), len(self.conv.weight)), 0)
        recent = torch.cat([state.recent[:, 1:], e.unsqueeze(1)], 1)
        count = (state.count + 1) % self.stride
        if count and not self.pool:
            return None, Windows(recent, state.total, count)
        w = self.activation(F.conv1d(recent.transpose(1, 2), self.conv.weight, self.conv.bias).squeeze(-1))
        if not self.pool:
            return w, Windows(recent, state.total, count)
        total = state.total + w
        if count:
            return None, Windows(recent, total, count)
        return total / self.stride, Windows(recent, torch.zeros_like(total), count)


def encode(encoder: nn.Module, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """``encoder(x)`` and the lengths of what it returns.

    An encoder that changes the length has a method ``shorten(lengths)`` and takes ``lengths`` as a second argument.
    """
    check_input(encoder, x, 3)
    shorten = getattr(encoder, "shorten", None)
    if shorten is None:
        return encoder(x), lengths
    return encoder(x, lengths), None if lengths is None else shorten(lengths)


def refuse_windows(encoder: nn.Module) -> None:
    """Raise :class:`UserError` for an encoder that has no answer after every sample, see :func:`encode`."""
    if hasattr(encoder, "shorten"):
        raise UserError(
            "this network's encoder reads windows of several samples, and this way of running it wants an answer after "
            "every one; stream it with network.step, or train with encoder=linear or encoder=embedding"
        )


class Summary(NamedTuple):
    """Running summary of a stream: sum over the samples so far, or the last one, ``(B, D)``; and their number.

    The sum is float64 where the device has it: in float32 it stops to grow after 2^24 samples, 17 minutes of sound.
    """

    value: Tensor
    count: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody asks a summary for


def summarise(h: Tensor, mode: Mode, lengths: Tensor | None = None) -> Tensor:
    """(B, L, D) -> (B, D): the mean over time or the last step, of the first ``lengths`` (B,) steps if given.

    Raises:
        UserError: lengths outside 1 .. L.
    """
    check_lengths(lengths, *h.shape[:2])
    if not h.shape[1] and not torch.compiler.is_compiling():
        raise UserError("a sequence of no steps has no answer; leave it out")
    if lengths is None:
        return h.mean(1) if mode == "pool" else h[:, -1]
    lengths = lengths.to(h.device)
    if mode == "last":
        return h[torch.arange(len(h), device=h.device), lengths - 1]
    inside = real_steps(lengths, h.shape[1])
    # masked_fill and not a product: whatever stands in the padding, NaN included, must not come through
    return h.masked_fill(~inside.unsqueeze(-1), 0).sum(1) / lengths.unsqueeze(1).to(h.dtype)


class _Summarising(nn.Module):
    every_step = False
    """True of a decoder that answers at every step; False of one that answers once a sequence."""

    def __init__(self, mode: Mode, use_lengths: bool) -> None:
        super().__init__()
        if mode not in ("pool", "last"):
            raise UserError(f"decoder.mode must be pool or last, not {mode!r}")
        self.mode, self.use_lengths = mode, use_lengths

    def summary(self, h: Tensor, lengths: Tensor | None) -> Tensor:
        """Over the real steps; without ``lengths`` all are real."""
        return summarise(h, self.mode, lengths if self.use_lengths else None)


class SequenceDecoder(_Summarising):
    """(B, L, d_model) -> (B, d_output): summary over time, then a linear layer."""

    def __init__(self, d_model: int, d_output: int, mode: Mode = "pool", use_lengths: bool = False) -> None:
        super().__init__(mode, use_lengths)
        self.output = nn.Linear(d_model, d_output)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.output(self.summary(h, lengths))

    def step(self, h: Tensor, state: Summary | None) -> tuple[Tensor, Summary]:
        """``(h_t (B, D), summary of what came before) -> (logits (B, C) of the samples so far, summary)``."""
        if self.mode == "last":
            return self.output(h), Summary(h, 1 if state is None else state.count + 1)
        wide = h if h.device.type == "mps" else h.double()
        state = Summary(wide, 1) if state is None else Summary(state.value + wide, state.count + 1)
        return self.output((state.value / state.count).to(h.dtype)), state


class StepDecoder(nn.Module):
    """(B, L, d_model) -> (B, L, d_output): a linear layer at every step, so the answer of step t is ready at step t.

    What stands in the padding of a short sequence is answered like any step; a task leaves those answers out.
    """

    every_step = True

    def __init__(self, d_model: int, d_output: int) -> None:
        super().__init__()
        self.output = nn.Linear(d_model, d_output)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        check_lengths(lengths, *h.shape[:2])
        return self.output(h)

    def step(self, h: Tensor, state: Summary | None = None) -> tuple[Tensor, None]:
        """``h_t (B, D) -> answer (B, d_output)`` of this sample; there is nothing to remember."""
        return self.output(h), None


class RetrievalDecoder(_Summarising):
    """(2B, L, d_model), first all first texts, then all second ones -> (B, d_output).

    a, b: summaries of the two. logits = W2 gelu(W1 [a, b, a - b, a * b] + b1) + b2, or with [a, b] if not ``nli``.
    """

    def __init__(
        self,
        d_model: int,
        d_output: int,
        mode: Mode = "pool",
        use_lengths: bool = True,
        nli: bool = True,
        d_hidden: int | None = None,
    ) -> None:
        super().__init__(mode, use_lengths)
        self.nli = nli
        hidden = d_hidden or d_model
        self.classifier = nn.Sequential(
            nn.Linear((4 if nli else 2) * d_model, hidden), nn.GELU(), nn.Linear(hidden, d_output)
        )

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        a, b = self.summary(h, lengths).chunk(2)
        return self.classifier(torch.cat([a, b, a - b, a * b] if self.nli else [a, b], -1))
