"""S4D: the diagonal state-space model of every channel, discretised by zero-order hold, in two parametrisations.

For each of H channels, N = d_state / 2 modes (one of every conjugate pair) and step size Δ::

    h_t = Ā h_{t-1} + B̄ x_t,   y_t = 2 Re(C h_t)            Ā = e^{ΔA},   B̄ = (e^{ΔA} - 1) / A · B
    K_l = 2 Re(C B̄ Ā^l)                                      the same map as a convolution kernel

S4D-Lin initialisation: A_n = -1/2 + iπn, Δ log-uniform in [dt_min, dt_max], C complex normal, B = 1.
A bidirectional layer has two C (one a direction) over the same A, B, Δ.

Learning rates follow S4: Δ, A and B have ``lr`` (None: the optimizer's own; 0: frozen, a buffer) and no weight decay,
which the optimizer reads from :meth:`DiagonalSSM.optim_options`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sdn.errors import UserError

from .kernel import mode_sum
from .options import check_rate, whole


class Discrete(NamedTuple):
    """The discretised system: ``dtA (H, N)``, ``B_bar (H, N)``, ``C (c, H, N)``, all complex; c directions."""

    dtA: Tensor
    B_bar: Tensor
    C: Tensor


class DiagonalSSM(nn.Module):
    """What both parametrisations share. Subclasses give ``_continuous() -> (Δ (H, 1), A (H, N), B, C (c, H, N))``."""

    def __init__(
        self, d_model: int, d_state: int, directions: int, lr: float | None, dt_min: float, dt_max: float
    ) -> None:
        super().__init__()
        whole(d_model=d_model)
        whole(2, d_state=d_state)
        if d_state % 2:
            raise UserError(f"d_state counts both modes of a pair: it must be even and at least 2, not {d_state}")
        if not 0 < dt_min <= dt_max:
            raise UserError(f"the step sizes need 0 < dt_min <= dt_max, not dt_min {dt_min} and dt_max {dt_max}")
        if lr is not None and not lr >= 0:
            raise UserError(f"the kernel's learning rate lr must be null or at least 0, not {lr}")
        self.d_model, self.n_modes, self.directions = d_model, d_state // 2, directions
        self._optim_options: dict[str, dict[str, float]] = {}

    def optim_options(self) -> dict[str, dict[str, float]]:
        """``{"name": {"lr": ..., "weight_decay": ...}}`` of own parameters, as in :meth:`sdn.Neuron.optim_options`."""
        return self._optim_options

    def _register(self, name: str, value: Tensor, lr: float | None, weight_decay: float | None) -> None:
        """Make ``value`` a parameter with its own optimizer options, or a buffer if its learning rate is 0."""
        if lr == 0.0:
            self.register_buffer(name, value)
            return
        wanted = {"lr": lr, "weight_decay": weight_decay}
        options = {key: option for key, option in wanted.items() if option is not None}
        self._optim_options[name] = options
        self.register_parameter(name, nn.Parameter(value))
        if options:
            getattr(self, name)._optim = options  # for the loop of state-spaces/s4; a copy of the module loses it

    def _continuous(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        raise NotImplementedError

    def discretise(self, rate: float = 1.0) -> Discrete:
        """Zero-order hold with step ``rate``·Δ; ``rate`` 2 reads a signal of which every second sample was kept.

        Raises:
            UserError: ``rate`` is no number above 0.
        """
        check_rate(rate)
        dt, A, B, C = self._continuous()
        dtA = A * (dt * rate)
        B_bar = torch.expm1(dtA) / A
        return Discrete(dtA, B_bar if B is None else B_bar * B, C)

    def forward(self, length: int, rate: float = 1.0, scale: Tensor | None = None) -> Tensor:
        """The kernel ``K (c, H, L)``, real; ``scale (H,)`` or ``(1,)`` multiplies it (cheap: it acts on the modes)."""
        dtA, B_bar, C = self.discretise(rate)
        coef = C * B_bar
        return mode_sum(coef if scale is None else coef * scale.unsqueeze(-1), dtA, length)


class S4DKernel(DiagonalSSM):
    """The plain form: B = 1, A = -exp(log_A_real) + i A_imag; C has the optimizer's own learning rate and weight decay.

    ``lr`` is taken as given, where the released code silently caps it at 1e-3; all its experiments use 1e-3.
    """

    log_dt: Tensor
    log_A_real: Tensor
    A_imag: Tensor

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        directions: int = 1,
        lr: float | None = 1e-3,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__(d_model, d_state, directions, lr, dt_min, dt_max)
        H, N = d_model, self.n_modes
        self._register("log_dt", _log_uniform(H, dt_min, dt_max), lr, 0.0)
        self._register("log_A_real", torch.full((H, N), math.log(0.5)), lr, 0.0)
        self._register("A_imag", (math.pi * torch.arange(N)).repeat(H, 1), lr, 0.0)
        self.C = nn.Parameter(_complex_normal(directions, H, N))

    def _continuous(self) -> tuple[Tensor, Tensor, None, Tensor]:
        A = torch.complex(-_full(self.log_A_real).exp(), _full(self.A_imag))
        return _full(self.log_dt).exp().unsqueeze(-1), A, None, _as_complex(self.C)


class S4DKernelB(DiagonalSSM):
    """The ``trainable_B`` form, parametrised as S4's diagonal kernel: A = -exp(A_real) - i A_imag, B learnt.

    C has the kernel's ``lr`` and the optimizer's weight decay. A_imag starts at 1e-4 where S4D-Lin has 0.
    """

    inv_dt: Tensor
    A_real: Tensor
    A_imag: Tensor
    B: Tensor
    C: Tensor

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        directions: int = 1,
        lr: float | None = 1e-3,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__(d_model, d_state, directions, lr, dt_min, dt_max)
        H, N = d_model, self.n_modes
        B = torch.zeros(1, H, N, 2)
        B[..., 0] = 1
        self._register("inv_dt", _log_uniform(H, dt_min, dt_max).unsqueeze(-1), lr, 0.0)
        self._register("A_real", torch.full((H, N), math.log(0.5)), lr, 0.0)
        self._register("A_imag", (math.pi * torch.arange(N)).clamp_min(1e-4).repeat(H, 1), lr, 0.0)
        self._register("B", B, lr, 0.0)
        self._register("C", _complex_normal(directions, H, N), lr, None)

    def _continuous(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        A = torch.complex(-_full(self.A_real).exp(), -_full(self.A_imag))
        return _full(self.inv_dt).exp(), A, _as_complex(self.B).squeeze(0), _as_complex(self.C)


def _log_uniform(H: int, low: float, high: float) -> Tensor:
    return torch.rand(H) * (math.log(high) - math.log(low)) + math.log(low)


def _complex_normal(*shape: int) -> Tensor:
    return torch.view_as_real(torch.randn(*shape, dtype=torch.cfloat)).clone()


def _as_complex(x: Tensor) -> Tensor:
    """``(..., 2)`` seen as complex, through one flat axis: so the gradient comes back with the strides of x, also along
    an axis of length 1, where they would be anything and DDP would copy it."""
    return torch.view_as_complex(_full(x).reshape(-1, 2)).view(x.shape[:-1])


def _full(x: Tensor) -> Tensor:
    """At least float32: the exponents of a kernel do not survive half precision."""
    return x if x.dtype == torch.float64 else x.float()
