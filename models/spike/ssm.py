"""SpikingSSM: a residual stack of SS4D layers, the backbone between a task's encoder and decoder.

For the stream x (B, L, D)::

    pre-norm        x = x + layer(norm(x))
    post-norm       x = norm(x + layer(x))                 postnorm: fixed
                    x = x + layer(x)                       postnorm: legacy, the released code, whose norm never applied

Inside, time is the last axis, (B, H, L), from the first layer to the last, so that convolution, neuron, mix and batch
norm all read contiguous rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from sdn.errors import UserError

from .lengths import check_lengths, real_steps
from .norms import make_norm
from .ss4d import SS4D, Recurrence
from .state import State

POSTNORMS: tuple[str, ...] = ("fixed", "legacy")


class SpikingSSM(nn.Module):
    """The backbone: ``forward(x (B, L, D)) -> (y (B, L, D), state)``, and ``step`` for one sample at a time.

    Args:
        d_model: width D of the stream (and of every layer).
        n_layers: number of layers.
        dropout: probability of dropping a channel, see :class:`SS4D`.
        prenorm: normalise before each layer, else after the residual sum.
        norm: "batch", "layer" or "none".
        postnorm: "fixed", or "legacy" for the released code, which computed the post-norm and dropped it: then a model
            with ``prenorm: false`` has no norm (nor its dead parameters). Without effect on pre-norm models.
        mask_padding: use ``lengths``: padded samples are zero for the convolutions and stay out of batch norm's
            statistics, so that no output depends on its padding. Off as released: padding is a part of the signal.
        layer: options of :class:`SS4D` (all but d_model and dropout).

    Raises:
        UserError: an option or a key of ``layer`` is not known, or out of range.
    """

    def __init__(
        self,
        d_model: int,
        n_layers: int = 4,
        dropout: float = 0.0,
        prenorm: bool = False,
        norm: str | None = "layer",
        postnorm: str = "fixed",
        mask_padding: bool = False,
        layer: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if d_model < 1 or n_layers < 1:
            raise UserError(f"d_model and n_layers must be at least 1, not {d_model} and {n_layers}")
        if postnorm not in POSTNORMS:
            raise UserError(f"unknown postnorm {postnorm!r}; choose one of {', '.join(POSTNORMS)}")
        options = _layer_options(layer)
        self.d_model = self.d_output = d_model
        self.prenorm, self.mask_padding = prenorm, mask_padding
        self.layers = nn.ModuleList(SS4D(d_model, dropout=dropout, **options) for _ in range(n_layers))
        if not prenorm and postnorm == "legacy":
            make_norm(norm, d_model)
            norm = "none"
        self.norms = nn.ModuleList(make_norm(norm, d_model) for _ in range(n_layers))

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, State | None]:
        """Run a whole sequence, ``x (B, L, D)`` -> ``(y (B, L, D), state)``.

        Args:
            state: continue from here (``initial_state`` to start) and return the state after the last sample: a stream
                in chunks, or a prefix before ``step``. Evaluation mode, no gradient. None: nothing to return.
            lengths: true lengths ``(B,)`` of padded sequences, 1 .. L; used with ``mask_padding`` only.
            rate: the sampling step in units of the training data's; 2 for a signal with every second sample left out.
        """
        check_lengths(lengths, *x.shape[:2])
        mask = self._mask(x, lengths)
        if state is not None:
            self._refuse_training()
            if mask is not None:
                raise UserError("a state continues equally long chunks; leave out lengths, or turn mask_padding off")
        x, after = x.transpose(1, 2).contiguous(), []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            u = _normed(norm, x, mask) if self.prenorm else x
            z, layer_state = layer(u if mask is None else u * mask, None if state is None else state[i], rate)
            x = x + z if self.prenorm else _normed(norm, x + z, mask)
            after.append(layer_state)
        return x.transpose(1, 2), None if state is None else after

    def initial_state(self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> State:
        """The state before the first sample, one ``(modes, membrane)`` a layer (:mod:`models.spike.state`)."""
        return [layer.initial_state(batch, device, dtype) for layer in self.layers]

    def recurrence(self, rate: float = 1.0) -> list[Recurrence]:
        """The constants of :meth:`step`, for a stream that should not compute them at every sample."""
        return [layer.recurrence(rate) for layer in self.layers]

    @torch.no_grad()
    def step(
        self, x: Tensor, state: State, constants: list[Recurrence] | None = None, rate: float = 1.0
    ) -> tuple[Tensor, State]:
        """One sample: ``(x_t (B, D), state) -> (y_t (B, D), state)``, equal to :meth:`forward` at that position.

        ``constants`` are those of :meth:`recurrence` and hold the rate already; without them they are computed for
        ``rate`` at every step.
        """
        self._refuse_training()
        constants, after = self.recurrence(rate) if constants is None else constants, []
        for layer, norm, memory, numbers in zip(self.layers, self.norms, state, constants, strict=True):
            z, memory = layer.step(norm(x) if self.prenorm else x, memory, numbers)
            x = x + z if self.prenorm else norm(x + z)
            after.append(memory)
        return x, after

    def _mask(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """``(B, 1, L)``, 1 where the sequence is and 0 where it is padded; None if there is nothing to mask."""
        if not self.mask_padding or lengths is None:
            return None
        return real_steps(lengths, x.shape[1], x.device).unsqueeze(1).to(x.dtype)

    def _refuse_training(self) -> None:
        if self.training:
            raise UserError("a model streams with fixed statistics and no dropout; call model.eval() first")


def _normed(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """A norm with a mask where there is one: Lightning's sync_batchnorm puts a torch module here that knows none."""
    return norm(x) if mask is None else norm(x, mask)


def _layer_options(layer: Mapping[str, object]) -> dict[str, object]:
    allowed = [name for name in inspect.signature(SS4D).parameters if name not in ("d_model", "dropout")]
    if not isinstance(layer, Mapping):
        raise UserError(f"layer must be a mapping of options, not {layer!r}; allowed are {', '.join(allowed)}")
    if unknown := [str(name) for name in layer if name not in allowed]:
        raise UserError(f"unknown layer option {', '.join(unknown)}; allowed are {', '.join(allowed)}")
    return dict(layer)
