"""The sliding parallel spiking neuron (PSN): no recurrence and no reset, a learnt window over the last k inputs.

For every channel, with I_t = 0 before the first step, in units of the threshold::

    u_t = sum_{i < k} w_i I_{t-i},    s_t = H(u_t - 1)                  w (H, k), at the start w_i = 2^-i

Source: Fang et al. 2023 (Parallel Spiking Neurons, arXiv 2304.12760), "sliding PSN"; there one window is shared by all
channels, and so it is here with ``shared``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from ..contract import Neuron
from ..errors import UserError
from ..surrogate import make_surrogate, spike


class SlidingPSN(Neuron):
    """A causal convolution per channel, then H. ``weight (H, k)``, the newest input last; ``(1, k)`` if ``shared``.

    Args:
        d_model: channels H.
        k: steps of the window.
        shared: one window for all channels.
        surrogate, width: the surrogate gradient (:mod:`sdn.surrogate`).

    Raises:
        UserError: k is not a whole number of at least 1.
    """

    binary = True

    def __init__(
        self, d_model: int, k: int = 32, shared: bool = False, surrogate: str = "triangle", width: float | None = None
    ) -> None:
        super().__init__()
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise UserError(f"k, the window of a sliding PSN, must be a whole number of at least 1, not {k!r}")
        self.k, self.surrogate = k, make_surrogate(surrogate, width)
        self.weight = nn.Parameter((2.0 ** -torch.arange(k).flip(0)).repeat(1 if shared else d_model, 1))

    def optim_options(self) -> dict[str, dict[str, float]]:
        return {"weight": {"weight_decay": 0.0}}

    def extra_repr(self) -> str:
        return f"k={self.k}"

    def initial_state(
        self, batch: int, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The last k - 1 inputs, ``(B, H, k - 1)``, the oldest first."""
        return torch.zeros(batch, channels, self.k - 1, device=device, dtype=dtype)

    def step(self, current: Tensor, state: Tensor, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check_state(current, state)
        window = torch.cat([state, self.scaled(current, v_th).unsqueeze(-1).to(state.dtype)], -1)
        return spike((window * self.weight).sum(-1) - 1, self.surrogate), window[..., 1:]

    def _unroll(self, current: Tensor, state: Tensor | None, v_th: Tensor | None) -> tuple[Tensor, Tensor]:
        """All steps at once: a depthwise convolution of the inputs, those of ``state`` in front."""
        self.check_current(current)
        self.check_state(current, current if state is None else state)
        x = self.scaled(current, v_th)
        x = pad(x, (self.k - 1, 0)) if state is None else torch.cat([state.to(x.dtype), x], -1)
        after = x[..., x.shape[-1] - self.k + 1 :]
        if not current.numel():
            return torch.empty_like(current), after
        H = current.shape[1]
        weight = self.weight.to(x.dtype).expand(H, self.k).unsqueeze(1)
        with torch.autocast(x.device.type, enabled=False):
            u = conv1d(x, weight, groups=H)
        return spike(u - 1, self.surrogate).to(current.dtype), after
