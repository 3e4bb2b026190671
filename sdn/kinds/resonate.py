"""The balanced resonate-and-fire neuron: a damped oscillator that fires while its real part is above the threshold.

With step size d, a complex potential z and a refractory trace q, from z_0 = q_0 = 0, in units of the threshold::

    b_t = p - b - q_{t-1},   p = (sqrt(1 - (d omega)^2) - 1) / d       damping; p keeps |1 + d (p + i omega)| = 1
    z_t = z_{t-1} + d ((b_t + i omega) z_{t-1} + I_t)
    s_t = H(Re z_t - 1 - q_{t-1})
    q_t = gamma q_{t-1} + s_t

There is no reset: a spike raises the threshold and damps the oscillation for a while (gamma). Without ``refractory``
q is 0 and the neuron is linear up to its spikes, the resonator of Izhikevich 2001. The factor by which z turns and
shrinks is a = 1 + d (b + i omega) of modulus at most 1.

Source: Higuchi et al. 2024 (balanced resonate-and-fire neurons, arXiv 2402.14603), eqs. of the BRF neuron.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..contract import Neuron
from ..errors import UserError
from ..surrogate import make_surrogate, spike
from . import loops

State: TypeAlias = tuple[Tensor, Tensor, Tensor]


class ResonateAndFire(Neuron):
    """Learns omega = |``omega``| and b = |``damping``| of every channel; ``(H,)`` each.

    Args:
        d_model: channels H.
        omega: range of angular frequencies at the start, in 1 / unit of d, below 1 / ``step_size``.
        damping: range of b at the start, above 0.
        step_size: d.
        refractory: balanced, with q; else a plain resonator.
        gamma: decay of q per step, between 0 and 1.
        surrogate, width: the surrogate gradient (:mod:`sdn.surrogate`).

    Raises:
        UserError: an option out of range.
    """

    binary = any_layout = True

    def __init__(
        self,
        d_model: int,
        omega: tuple[float, float] = (5.0, 10.0),
        damping: tuple[float, float] = (0.1, 1.0),
        step_size: float = 0.01,
        refractory: bool = True,
        gamma: float = 0.9,
        surrogate: str = "triangle",
        width: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 < step_size < math.inf:
            raise UserError(f"step_size of a resonate-and-fire neuron must be above 0, not {step_size}")
        if len(omega) != 2 or not 0 <= omega[0] <= omega[1] < 1 / step_size:
            raise UserError(f"omega needs 0 <= low <= high < 1 / step_size = {1 / step_size:g}, not {list(omega)}")
        if len(damping) != 2 or not 0 < damping[0] <= damping[1] < 1 / step_size:
            raise UserError(f"damping needs 0 < low <= high < 1 / step_size = {1 / step_size:g}, not {list(damping)}")
        if not 0 < gamma < 1:
            raise UserError(f"gamma is the decay of the refractory trace and must lie between 0 and 1, not {gamma}")
        self.step_size, self.refractory, self.gamma = float(step_size), refractory, float(gamma)
        self.surrogate = make_surrogate(surrogate, width)
        self.omega = nn.Parameter(torch.empty(d_model).uniform_(*omega))
        self.damping = nn.Parameter(torch.empty(d_model).uniform_(*damping))

    def optim_options(self) -> dict[str, dict[str, float]]:
        return {name: {"weight_decay": 0.0} for name in ("omega", "damping")}

    def extra_repr(self) -> str:
        return f"step_size={self.step_size:g}, refractory={self.refractory}, gamma={self.gamma:g}"

    def initial_state(
        self, batch: int, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """``(Re z, Im z, q)``, each ``(B, H)``."""
        zeros = torch.zeros(batch, channels, device=device, dtype=dtype)
        return zeros, zeros.clone(), zeros.clone()

    def pole(self) -> tuple[Tensor, Tensor]:
        """a = 1 + d (p - b + i omega) at q = 0, its real and imaginary part, ``(H,)``: z_t = a z_{t-1} + d I_t."""
        turn = (self.step_size * self.omega.abs()).clamp(max=1.0)
        return torch.sqrt(1 - turn * turn) - self.step_size * self.damping.abs(), turn

    def step(self, current: Tensor, state: State, v_th: Tensor | None = None) -> tuple[Tensor, State]:
        self.check_state(current, state)
        return self._advance(self.scaled(current, v_th), state, *self.pole())

    def _advance(self, x: Tensor, state: State, re: Tensor, im: Tensor) -> tuple[Tensor, State]:
        u, v, q = state
        shrink = re - self.step_size * q if self.refractory else re
        u, v = shrink * u - im * v + self.step_size * x, shrink * v + im * u
        s = spike(u - 1 - q, self.surrogate)
        return s, (u, v, self.gamma * q + s if self.refractory else q)

    def _unroll(self, current: Tensor, state: State | None, v_th: Tensor | None) -> tuple[Tensor, State]:
        pole = self.pole()  # once, not at every step
        if loops.ready(current, v_th, *pole):
            from . import resonate_kernels

            numbers = self.step_size, self.gamma, self.refractory
            s, (u, v, q) = loops.run(resonate_kernels, self, current, state, v_th, pole, numbers)
            return s, (u, v, q)
        return self._over_time(current, state, v_th, lambda x, state: self._advance(x, state, *pole))

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        """``I (B, H, L)`` -> spikes; what no compiled loop takes and has no ``refractory``, as a convolution by FFT."""
        if self.refractory or not current.numel() or loops.ready(current, v_th, self.omega, self.damping):
            return super().forward(current, v_th)
        x, (re, im), L = self.scaled(current, v_th), self.pole(), current.shape[-1]
        real = torch.promote_types(x.dtype, re.dtype)
        a = torch.complex(re.to(real), im.to(real))
        kernel = (self.step_size * a.log().unsqueeze(-1).mul(torch.arange(L, device=x.device)).exp()).real
        n = 2 * L
        u = torch.fft.irfft(torch.fft.rfft(x.to(real), n) * torch.fft.rfft(kernel, n), n)[..., :L]
        return spike(u - 1, self.surrogate).to(current.dtype)
