"""SpikingSSM: a residual stack of SS4D layers, the backbone between a task's encoder and decoder.

For the stream x (B, L, D)::

    pre-norm        x = x + layer(norm(x))
    post-norm       x = norm(x + layer(x))                 postnorm: fixed
                    x = x + layer(x)                       postnorm: legacy, the released code, whose norm never applied

Inside, time is the last axis, (B, H, L), from the first layer to the last, so that convolution, neuron, mix and batch
norm all read contiguous rows.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from sdn.errors import UserError
from sdn.lif import check_tau
from sdn.network import ReducedSDN
from sdn.neurons import SDNNeuron, make_neuron
from sdn.typed import Modules

from . import fused
from .gate import check_floats, check_sample
from .lengths import check_lengths, real_steps
from .norms import make_norm, normed
from .options import switch, whole
from .ss4d import SS4D, Recurrence
from .state import State

POSTNORMS: tuple[str, ...] = ("fixed", "legacy")
NEURON_OPTIONS: dict[str, str] = {
    "tau": "tau",
    "sdn": "weights",
    "reset": "reset",
    "u_r": "u_r",
    "learnable_tau": "learnable_tau",
    "learnable_u_r": "learnable_u_r",
    "surrogate": "surrogate",
    "width": "width",
}
"""Keys of ``layer`` that belong to the neuron, and their names in :func:`sdn.neurons.make_neuron`."""


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
        layer: options of :class:`SS4D` (all but d_model and dropout). Beside ``neuron``, a word or a mapping, stand the
            options of sdn, sltt and bptt: :data:`NEURON_OPTIONS`, as in :func:`sdn.neurons.make_neuron` (``sdn`` is a
            file, or a :class:`sdn.ReducedSDN`). A neuron given as a module is copied into every layer.

    Compiled by ``torch.compile`` it makes a graph for every length, since transforms and kernel are planned for one;
    after ``torch._dynamo.config.recompile_limit`` lengths (8) further ones run uncompiled, as torch warns. Pad to a few
    lengths. The neurons by themselves have one graph for all.

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
        layer: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        whole(d_model=d_model, n_layers=n_layers)
        switch(prenorm=prenorm, mask_padding=mask_padding)
        if postnorm not in POSTNORMS:
            raise UserError(f"unknown postnorm {postnorm!r}; choose one of {', '.join(POSTNORMS)}")
        options, make = _layer_options(layer)
        self.d_model = self.d_output = d_model
        self.prenorm, self.mask_padding = prenorm, mask_padding
        self.layers = Modules(SS4D(d_model, dropout=dropout, neuron=make(d_model), **options) for _ in range(n_layers))
        if not prenorm and postnorm == "legacy":
            make_norm(norm, d_model)
            norm = "none"
        self.norms = Modules(make_norm(norm, d_model) for _ in range(n_layers))

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, rate: float = 1.0
    ) -> tuple[Tensor, State | None]:
        """Run a whole sequence, ``x (B, L, D)`` -> ``(y (B, L, D), state)``.

        Args:
            state: continue from here (``initial_state`` to start) and return the state after the last sample: a stream
                in chunks, or a prefix before ``step``. Evaluation mode, no gradient. None: nothing to return.
            lengths: true lengths ``(B,)`` of padded sequences, 1 .. L; used with ``mask_padding`` only.
            rate: the sampling step in units of the training data's; 2 for a signal with every second sample left out.

        Raises:
            UserError: no floats ``(B, L, D)``, lengths outside 1 .. L, NaN or infinity in a chunk, a foreign state.
        """
        check_floats(x, 3, self.d_model)
        check_lengths(lengths, *x.shape[:2])
        mask = self._mask(x, lengths)
        if state is not None:
            self._refuse_training()
            check_sample(x, state)
            self._check_state(state)
            if mask is not None:
                raise UserError("a state continues equally long chunks; leave out lengths, or turn mask_padding off")
        if state is None and fused.ready(self, x):
            return fused.run(self, x, None if mask is None else lengths, rate), None
        x, after = x.transpose(1, 2).contiguous(), []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            u = normed(norm, x, mask) if self.prenorm else x
            z, layer_state = layer(u if mask is None else u * mask, None if state is None else state[i], rate)
            x = x + z if self.prenorm else normed(norm, x + z, mask)
            after.append(layer_state)
        return x.transpose(1, 2), None if state is None else after

    def initial_state(self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> State:
        """The state before the first sample, one ``(modes, neuron)`` a layer (:mod:`models.spike.state`)."""
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
        check_floats(x, 2, self.d_model)
        check_sample(x, state)
        self._check_state(state)
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

    def _check_state(self, state: State) -> None:
        wanted = (self.d_model, self.layers[0].kernel.n_modes)
        if len(state) != len(self.layers) or any(tuple(modes.shape[1:]) != wanted for modes, _ in state):
            raise UserError("this is a state of another network; make one with this one's initial_state")

    def _refuse_training(self) -> None:
        if self.training:
            raise UserError("a model streams with fixed statistics and no dropout; call model.eval() first")


def _layer_options(layer: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[int], nn.Module]]:
    """``layer`` as options of SS4D without the neuron, and what makes the neuron of each layer."""
    own = [name for name in inspect.signature(SS4D).parameters if name not in ("d_model", "dropout")]
    allowed = [*own, *NEURON_OPTIONS]
    if not isinstance(layer, Mapping):
        raise UserError(f"layer must be a mapping of options, not {layer!r}; allowed are {', '.join(allowed)}")
    if unknown := [str(name) for name in layer if name not in allowed]:
        raise UserError(f"unknown layer option {', '.join(unknown)}; allowed are {', '.join(allowed)}")
    options = {name: value for name, value in layer.items() if name in own}
    of_neuron = {NEURON_OPTIONS[name]: value for name, value in layer.items() if name in NEURON_OPTIONS}
    given = options.pop("neuron", "sdn")
    if isinstance(given, nn.Module):
        return options, lambda _: copy.deepcopy(given)
    if callable(given):
        return options, given
    return options, lambda d_model: make_neuron(given, d_model=d_model, **of_neuron)


def with_sdn_from(
    tensors: Mapping[str, Tensor], layer: Mapping[str, Any], prefix: str = "backbone."
) -> Mapping[str, Any]:
    """The options ``layer`` of a network whose weights are at hand, with its SDNs taken from them, not from a file.

    ``SpikingSSM(d_model, layer=with_sdn_from(tensors, layer))`` builds the network of a checkpoint whose SDN file is
    gone; its weights are loaded afterwards as usual. Other neurons than "sdn" are left as they are.

    Args:
        tensors: the state by name; the SDN of layer i under ``{prefix}layers.{i}.neuron.sdn.``.

    Raises:
        UserError: when the network is built: no SDN among the weights, or a damaged one.
    """
    if not isinstance(layer, Mapping):
        return layer  # refused when the network is built
    neuron = layer.get("neuron", "sdn")
    own = dict(neuron) if isinstance(neuron, Mapping) else {}
    if (own.get("_name_") if own else neuron) != "sdn":
        return layer
    options = {key: (own if own else layer).get(key) for key in ("tau", "surrogate", "width")}
    tau = check_tau(0.125 if options["tau"] is None else options["tau"])
    numbers = itertools.count()

    def make(d_model: int) -> SDNNeuron:
        start = f"{prefix}layers.{next(numbers)}.neuron.sdn."
        weights = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        return SDNNeuron(ReducedSDN(weights, tau), options["surrogate"] or "triangle", options["width"])

    return {key: value for key, value in layer.items() if key not in NEURON_OPTIONS} | {"neuron": make}
