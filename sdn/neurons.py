"""Neurons as modules: one interface, three ways to obtain the membrane potential.

``neuron(I, v_th)`` maps a current ``(B, H, L)`` to spikes ``(B, H, L)`` in {0, 1};
``neuron.step(I_t, u, v_th)`` maps ``(B, H)`` to ``(s_t, u_t)`` by the exact recurrence, also for the SDN.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from . import ops
from .errors import UserError
from .lif import Reset, check_reset, check_tau, lif_step
from .network import ReducedSDN

NEURONS: tuple[str, ...] = ("sdn", "sltt", "bptt")
_LEAST = 1e-6
"""How near a learnt tau may come to 0 or 1, where a sigmoid in float32 would round to them."""


class _Neuron(nn.Module):
    def __init__(self, tau: float) -> None:
        super().__init__()
        self._tau = check_tau(tau)

    @property
    def tau(self) -> float | Tensor:
        """Decay per step: a number, or ``(H,)`` where it is learnt."""
        return self._tau

    def constants(self) -> tuple[float | Tensor, float | Tensor, Reset]:
        """``(tau, u_r, reset)`` of the exact recurrence, for whoever runs it elsewhere."""
        return self.tau, 0.0, "hard"

    @torch.no_grad()
    def step(self, current: Tensor, u: Tensor, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One exact step: ``(I_t, u_{t-1}) -> (s_t, u_t)``, all ``(B, H)``."""
        return lif_step(current if v_th is None else current / v_th, u, *self.constants())

    def scan(self, current: Tensor, u0: Tensor | None = None, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Exact spikes ``(B, H, L)`` and the potential ``(B, H)`` after them, from ``u0``; no gradient."""
        tau, u_r, reset = self.constants()
        return ops.lif_scan(current, u0, tau, v_th, u_r, reset)


class LIF(_Neuron):
    """The exact neuron with gradient "sltt" (elementwise) or "bptt" (through time).

    Args:
        tau: decay per step, or its value before training.
        gradient: "sltt" or "bptt".
        reset: "hard" to ``u_r``, or "soft" by subtraction of the threshold.
        u_r: reset value in units of the threshold, below 1; or its value before training.
        learnable_tau: learn a decay per channel, sigmoid(``logit_tau`` (H,)), so that it stays between 0 and 1.
        learnable_u_r: learn a reset value per channel, the parameter ``reset_value`` (H,).
        d_model: channels H; needed where something is learnt.

    Raises:
        UserError: an option out of range, or a combination in which nothing could be learnt.
    """

    def __init__(
        self,
        tau: float = 0.125,
        gradient: Literal["sltt", "bptt"] = "sltt",
        reset: Reset = "hard",
        u_r: float = 0.0,
        learnable_tau: bool = False,
        learnable_u_r: bool = False,
        d_model: int | None = None,
    ) -> None:
        super().__init__(tau)
        if gradient not in ("sltt", "bptt"):
            raise UserError(f"unknown gradient {gradient!r}; choose sltt or bptt")
        if not float(u_r) < 1.0:
            raise UserError(f"the reset value u_r counts in thresholds and must lie below 1, not {u_r}")
        if check_reset(reset) == "soft" and (u_r != 0.0 or learnable_u_r):
            raise UserError(
                "a soft reset subtracts the threshold and has no reset value u_r; choose reset hard for one"
            )
        if learnable_u_r and gradient != "bptt":
            raise UserError("sltt gives the reset value u_r no gradient; choose neuron bptt to learn it")
        if (learnable_tau or learnable_u_r) and d_model is None:
            raise UserError("a learnable tau or u_r is one per channel; give the number of channels, d_model")
        self.gradient, self.reset, self._u_r = gradient, reset, float(u_r)
        self.logit_tau = self._parameter(math.log(tau / (1 - tau)), d_model) if learnable_tau else None
        self.reset_value = self._parameter(float(u_r), d_model) if learnable_u_r else None

    @staticmethod
    def _parameter(value: float, d_model: int | None) -> nn.Parameter:
        parameter = nn.Parameter(torch.full((d_model,), value))
        parameter._optim = {"weight_decay": 0.0}
        return parameter

    @property
    def tau(self) -> float | Tensor:
        return self._tau if self.logit_tau is None else torch.sigmoid(self.logit_tau).clamp(_LEAST, 1 - _LEAST)

    @property
    def u_r(self) -> float | Tensor:
        """Reset value in units of the threshold: a number, or ``(H,)`` where it is learnt."""
        return self._u_r if self.reset_value is None else self.reset_value

    def constants(self) -> tuple[float | Tensor, float | Tensor, Reset]:
        return self.tau, self.u_r, self.reset

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        """``I (B, H, L)``, ``v_th (H,)`` -> spikes."""
        tau, u_r, reset = self.constants()
        return ops.lif(current, tau, v_th, u_r, reset, self.gradient)

    def extra_repr(self) -> str:
        learnt = [name for name, p in (("tau", self.logit_tau), ("u_r", self.reset_value)) if p is not None]
        start = f"tau={self._tau:g}, gradient={self.gradient}, reset={self.reset}, u_r={self._u_r:g}"
        return start + (f", learnt: {', '.join(learnt)}" if learnt else "")


class SDNNeuron(_Neuron):
    """The paper's neuron: mem from a frozen :class:`sdn.network.ReducedSDN`, s = H(mem + I - 1)."""

    def __init__(self, sdn: ReducedSDN) -> None:
        super().__init__(sdn.tau)
        self.sdn = sdn

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        """``I (B, H, L)``, ``v_th (H,)`` -> spikes."""
        return ops.surrogate(current, self.sdn, v_th)


def make_neuron(
    name: str,
    tau: float = 0.125,
    weights: str | None = None,
    reset: Reset = "hard",
    u_r: float = 0.0,
    learnable_tau: bool = False,
    learnable_u_r: bool = False,
    d_model: int | None = None,
) -> _Neuron:
    """Build the neuron a config names: "sdn" (``weights``: a reduced SDN file; None: the shipped one), "sltt", "bptt".

    The other options are those of :class:`LIF`; an SDN is fitted for one tau and hard reset to 0.

    Raises:
        UserError: unknown name, an option out of range, an SDN fitted for another tau or asked for what it cannot do.
    """
    if name not in NEURONS:
        raise UserError(f"unknown neuron {name!r}; choose one of {', '.join(NEURONS)}")
    if name != "sdn":
        return LIF(tau, name, reset, u_r, learnable_tau, learnable_u_r, d_model)
    if check_reset(reset) != "hard" or u_r != 0.0 or learnable_tau or learnable_u_r:
        raise UserError(
            "an SDN is fitted for one tau and hard reset to 0; choose neuron sltt or bptt for anything else"
        )
    from .weights import load_reduced

    return SDNNeuron(load_reduced(weights or check_tau(tau), tau=tau))
