"""ALIF: a leaky integrate-and-fire neuron whose threshold rises with every spike and falls back slowly.

In units of the threshold at rest, from u_0 = a_0 = 0::

    u'_t = tau u_{t-1} + I_t
    s_t  = H(u'_t - 1 - beta a_{t-1})
    u_t  = u'_t - s_t                      reset by subtraction of the threshold at rest
    a_t  = rho a_{t-1} + s_t               adaptation

Source: Bellec et al. 2018 (LSNN, arXiv 1803.09574) and 2020 (e-prop), there alpha for tau. The spike in the reset is
detached as in :mod:`sdn.lif`; in the adaptation it is not, since that is the path on which gradients reach far back.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..contract import Neuron
from ..errors import UserError
from ..lif import check_tau
from ..surrogate import make_surrogate, spike
from . import loops

State: TypeAlias = tuple[Tensor, Tensor]


class ALIF(Neuron):
    """Learns tau = sigmoid(``logit_tau``), rho = sigmoid(``logit_rho``), beta = softplus(``raw_beta``), a channel each.

    Args:
        d_model: channels H.
        tau, rho: decay per step of potential and adaptation before training, each between 0 and 1.
        beta: rise of the threshold by a spike before training, in thresholds, above 0.
        learnable: learn the three; else they stay as given.
        surrogate, width: the surrogate gradient (:mod:`sdn.surrogate`).

    Raises:
        UserError: an option out of range.
    """

    binary = any_layout = True
    logit_tau: nn.Parameter
    logit_rho: nn.Parameter
    raw_beta: nn.Parameter

    def __init__(
        self,
        d_model: int,
        tau: float = 0.9,
        rho: float = 0.98,
        beta: float = 0.5,
        learnable: bool = True,
        surrogate: str = "triangle",
        width: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 < float(beta) < math.inf:
            raise UserError(f"beta is the rise of the threshold by a spike and must be above 0, not {beta}")
        if not 0 < float(rho) < 1:
            raise UserError(f"rho is the adaptation's decay per step and must lie between 0 and 1, not {rho}")
        tau = check_tau(tau)
        self.surrogate = make_surrogate(surrogate, width)
        for name, value in (
            ("logit_tau", math.log(tau / (1 - tau))),
            ("logit_rho", math.log(rho / (1 - rho))),
            ("raw_beta", beta + math.log(-math.expm1(-beta))),
        ):
            self.register_parameter(name, nn.Parameter(torch.full((d_model,), value), requires_grad=learnable))

    @property
    def tau(self) -> Tensor:
        """Decay of the potential per step, ``(H,)``."""
        return torch.sigmoid(self.logit_tau)

    @property
    def rho(self) -> Tensor:
        """Decay of the adaptation per step, ``(H,)``."""
        return torch.sigmoid(self.logit_rho)

    @property
    def beta(self) -> Tensor:
        """Rise of the threshold by a spike, ``(H,)``, in thresholds."""
        return nn.functional.softplus(self.raw_beta)

    def optim_options(self) -> dict[str, dict[str, float]]:
        return {name: {"weight_decay": 0.0} for name in ("logit_tau", "logit_rho", "raw_beta")}

    def initial_state(
        self, batch: int, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """``(u, a)``, each ``(B, H)``: potential and adaptation."""
        return torch.zeros(batch, channels, device=device, dtype=dtype), torch.zeros(
            batch, channels, device=device, dtype=dtype
        )

    def step(self, current: Tensor, state: State, v_th: Tensor | None = None) -> tuple[Tensor, State]:
        self.check_state(current, state)
        return self._advance(self.scaled(current, v_th), state, self.tau, self.rho, self.beta)

    def _advance(self, x: Tensor, state: State, tau: Tensor, rho: Tensor, beta: Tensor) -> tuple[Tensor, State]:
        u, a = state
        u = tau * u + x
        s = spike(u - 1 - beta * a, self.surrogate)
        return s, (u - s.detach(), rho * a + s)

    def _unroll(self, current: Tensor, state: State | None, v_th: Tensor | None) -> tuple[Tensor, State]:
        constants = self.tau, self.rho, self.beta  # once, not at every step
        if loops.ready(current, v_th, *constants):
            from . import alif_kernels

            s, (u, a) = loops.run(alif_kernels, self, current, state, v_th, constants)
            return s, (u, a)
        return self._over_time(current, state, v_th, lambda x, state: self._advance(x, state, *constants))
