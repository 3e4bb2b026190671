"""Neurons as modules: one interface, three ways to obtain the membrane potential.

``neuron(I, v_th)`` maps a current ``(B, H, L)`` to spikes ``(B, H, L)`` in {0, 1};
``neuron.step(I_t, u, v_th)`` maps ``(B, H)`` to ``(s_t, u_t)`` by the exact recurrence, also for the SDN.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from . import ops
from .errors import UserError
from .lif import Reset, check_reset, check_tau, lif_step
from .surrogate import spike

NEURONS: tuple[str, ...] = ("sdn", "sltt", "bptt")


class _Neuron(nn.Module):
    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = check_tau(tau)

    def _constants(self) -> tuple[float | Tensor, float | Tensor, Reset]:
        return self.tau, 0.0, "hard"

    @torch.no_grad()
    def step(self, current: Tensor, u: Tensor, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One exact step: ``(I_t, u_{t-1}) -> (s_t, u_t)``, all ``(B, H)``."""
        return lif_step(current if v_th is None else current / v_th, u, *self._constants())

    def scan(self, current: Tensor, u0: Tensor | None = None, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Exact spikes ``(B, H, L)`` and the potential ``(B, H)`` after them, from ``u0``; no gradient."""
        tau, u_r, reset = self._constants()
        return ops.lif_scan(current, u0, tau, v_th, u_r, reset)


class LIF(_Neuron):
    """The exact neuron with gradient "sltt" (elementwise) or "bptt" (through time)."""

    def __init__(
        self, tau: float = 0.125, gradient: Literal["sltt", "bptt"] = "sltt", reset: Reset = "hard", u_r: float = 0.0
    ) -> None:
        super().__init__(tau)
        self.gradient, self.reset, self.u_r = gradient, check_reset(reset), float(u_r)

    def _constants(self) -> tuple[float | Tensor, float | Tensor, Reset]:
        return self.tau, self.u_r, self.reset

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        tau, u_r, reset = self._constants()
        return ops.lif(current, tau, v_th, u_r, reset, self.gradient)


class SDNNeuron(_Neuron):
    """The paper's neuron: mem from a frozen :class:`sdn.network.ReducedSDN`, s = H(mem + I - 1)."""

    def __init__(self, sdn: nn.Module) -> None:
        super().__init__(sdn.tau)
        self.sdn = sdn

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        if v_th is not None:
            current = current / v_th.unsqueeze(-1)
        with torch.no_grad():
            mem = self.sdn(current)
        return spike(mem + current - 1)


def make_neuron(
    name: str, tau: float = 0.125, weights: str | None = None, reset: Reset = "hard", u_r: float = 0.0
) -> _Neuron:
    """Build the neuron a config names: "sdn" (``weights``: a reduced SDN file, default the shipped one), "sltt", "bptt".

    Raises:
        UserError: unknown name, tau outside (0, 1), or an SDN fitted for another tau.
    """
    if name not in NEURONS:
        raise UserError(f"unknown neuron {name!r}; choose one of {', '.join(NEURONS)}")
    if name != "sdn":
        return LIF(tau, name, reset, u_r)
    if check_reset(reset) != "hard" or u_r != 0.0:
        raise UserError("an SDN is fitted for hard reset to 0; choose neuron sltt or bptt for another reset")
    from .weights import load_reduced

    return SDNNeuron(load_reduced(weights or check_tau(tau), tau=tau))
