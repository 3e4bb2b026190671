"""SS4D: one spiking state-space layer, an S4D whose output drives neurons, and a mix of their spikes.

For the input u (B, H, L), time last::

    y = S4D(u) + D u          long convolution, per channel
    I = y / v_th              current in units of the threshold (folded into the kernel and D)
    s = neuron(I)             spikes in {0, 1}, or what else a sdn.Neuron sends on
    z = dropout(GLU(W dropout(s) + b))      W (2H, H): the mix; dropout drops whole channels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from sdn.contract import Neuron, require
from sdn.errors import UserError
from sdn.neurons import make_neuron

from .fftconv import fftconv
from .kernel import mode_project, mode_sum
from .mix import Mix
from .options import share, switch
from .s4d import S4DKernel, S4DKernelB
from .state import LayerState


class Recurrence(NamedTuple):
    """One layer as a recurrence: ``h = A h + B x``, ``I = 2 Re(C h) + D x``; A, B, C ``(H, N)`` complex, D ``(H,)``."""

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor


class SS4D(nn.Module):
    """One layer. ``forward(u (B, H, L)) -> (z (B, H, L), state)``; ``step`` is the same map one sample at a time.

    Args:
        d_model: channels H.
        d_state: SSM state size; d_state / 2 complex modes a channel.
        bidirectional: the convolution looks both ways (the neuron never does); no recurrent form then.
        learnable_vth, shared_vth: threshold exp(ln_vth), per channel or one for all; fixed at 1 if not learnable.
        trainable_B: S4's kernel parametrisation with a learnt B (:mod:`models.spike.s4d`).
        lr: learning rate of the kernel's Δ, A (and B, C with trainable_B); None for the optimizer's, 0 to freeze.
        dt_min, dt_max: range of Δ at initialisation.
        dropout: probability that a channel is silenced for the whole sequence, after the neuron and after the GLU.
        neuron: the neuron, an ``nn.Module`` that keeps the contract of :class:`sdn.Neuron` (a plain module that maps
            ``(B, H, L)`` to itself will do where nothing is streamed); or a function ``d_model -> neuron``; or a word
            or mapping for :func:`sdn.neurons.make_neuron`. One without a threshold has no ``ln_vth``.

    Raises:
        UserError: an option is out of range.
    """

    neuron: Neuron

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        bidirectional: bool = False,
        learnable_vth: bool = True,
        shared_vth: bool = False,
        trainable_B: bool = False,
        lr: float | None = 1e-3,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dropout: float = 0.0,
        neuron: nn.Module | Callable[[int], nn.Module] | str | Mapping[str, Any] = "sdn",
    ) -> None:
        super().__init__()
        share(dropout=dropout)
        switch(
            bidirectional=bidirectional,
            learnable_vth=learnable_vth,
            shared_vth=shared_vth,
            trainable_B=trainable_B,
        )
        self.d_model, self.bidirectional = d_model, bidirectional
        kernel = S4DKernelB if trainable_B else S4DKernel
        self.kernel = kernel(d_model, d_state, 2 if bidirectional else 1, lr, dt_min, dt_max)
        self.D = nn.Parameter(torch.randn(d_model))
        made = _neuron(neuron, d_model)
        learnable_vth = learnable_vth and getattr(made, "threshold", True)
        self.ln_vth = nn.Parameter(torch.zeros(1 if shared_vth else d_model)) if learnable_vth else None
        self.neuron = cast(Neuron, made)  # or a plain module: what it cannot do is asked of :func:`require`
        self.mix = Mix(d_model, dropout)

    def forward(
        self, u: Tensor, state: LayerState | None = None, rate: float = 1.0
    ) -> tuple[Tensor, LayerState | None]:
        """``u (B, H, L)`` -> ``(z (B, H, L), state)``.

        With a ``state`` the sequence continues from it by the exact recurrence, without gradient, and the state after
        the last sample is returned; without one there is no state to return and no extra work.
        """
        inv_vth = self._inv_vth()
        if not u.shape[-1]:
            return torch.empty_like(u), state
        kernel = self.kernel(u.shape[-1], rate, inv_vth)
        current = fftconv(u, kernel, self.D if inv_vth is None else self.D * inv_vth)
        binary = getattr(self.neuron, "binary", False)
        if state is None:
            return self.mix(self.neuron(current), binary), None
        require(self.neuron, "streams")
        with torch.no_grad():
            from_state, modes = self._continue(u, state[0], rate)
            s, memory = self.neuron.scan(current + from_state, state[1])
        return self.mix(s, binary), (modes, memory)

    def initial_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LayerState:
        """Zeros: modes ``(batch, H, N)`` complex and what the neuron remembers; ``dtype`` is the real one."""
        self._refuse_bidirectional()
        require(self.neuron, "streams")
        like = self.D.new_zeros(batch, self.d_model, device=device, dtype=dtype)
        like = like if like.dtype == torch.float64 else like.float()
        modes = like.to(like.dtype.to_complex()).unsqueeze(-1).repeat(1, 1, self.kernel.n_modes)
        return modes, self.neuron.initial_state(batch, self.d_model, like.device, like.dtype)

    @torch.no_grad()
    def recurrence(self, rate: float = 1.0) -> Recurrence:
        """The constants of :meth:`step`, which a long stream computes once."""
        self._refuse_bidirectional()
        dtA, B_bar, C = self.kernel.discretise(rate)
        inv_vth = self._inv_vth()
        if inv_vth is None:
            return Recurrence(dtA.exp(), B_bar, C[0], self.D)
        return Recurrence(dtA.exp(), B_bar, C[0] * inv_vth.unsqueeze(-1), self.D * inv_vth)

    @torch.no_grad()
    def step(self, u: Tensor, state: LayerState, constants: Recurrence | None = None) -> tuple[Tensor, LayerState]:
        """``(u_t (B, H), state) -> (z_t (B, H), state)``. The neuron is exact, also for an SDN."""
        A, B, C, D = self.recurrence() if constants is None else constants
        modes = torch.addcmul(B * u.unsqueeze(-1), A, state[0])
        current = 2 * (C * modes).real.sum(-1) + D * u
        s, memory = self.neuron.step(current, state[1])
        return self.mix.step(s), (modes, memory)

    def _inv_vth(self) -> Tensor | None:
        return None if self.ln_vth is None else torch.exp(-self.ln_vth)

    def _continue(self, u: Tensor, modes: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """What earlier samples still contribute, ``(B, H, L)``, and the modes after this chunk.

        At sample t of the chunk 2 Re(C Ā^{t+1} h): the kernel's own sum, with coefficients C Ā h for every row.
        """
        self._refuse_bidirectional()
        L = u.shape[-1]
        dtA, B_bar, _ = self.kernel.discretise(rate)
        A, _, C, _ = self.recurrence(rate)
        from_state = mode_sum(C * A * modes, dtA, L)
        u = u.to(from_state.dtype)
        return from_state, torch.exp(dtA * L) * modes + B_bar * mode_project(u, dtA)

    def _refuse_bidirectional(self) -> None:
        if self.bidirectional:
            raise UserError(
                "a bidirectional layer has no recurrent form, as every output depends on samples still to come; "
                "train with bidirectional: false to stream"
            )


def _neuron(given: nn.Module | Callable[[int], nn.Module] | str | Mapping[str, Any], d_model: int) -> nn.Module:
    if isinstance(given, nn.Module):
        return given
    neuron = given(d_model) if callable(given) else make_neuron(given, d_model=d_model)
    if not isinstance(neuron, nn.Module):
        raise UserError(f"a neuron must be a torch.nn.Module, best a sdn.Neuron, not {type(neuron).__name__}")
    return neuron
