"""The real-valued twin: no spike, no memory, y = gelu(I). With it an SS4D layer is the S4D layer of Gu et al. 2022.

It tells the price of spikes: the same network, harness and parameters, with graded values where spikes were.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from ..contract import Neuron
from ..errors import UserError


class GELU(Neuron):
    """``I (B, H, L) -> gelu(I)``, element by element; nothing to remember and no threshold to learn."""

    threshold, any_layout = False, True

    def initial_state(
        self, batch: int, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[()]:
        return ()

    def step(self, current: Tensor, state: tuple[()] = (), v_th: Tensor | None = None) -> tuple[Tensor, tuple[()]]:
        if not current.is_floating_point():
            raise UserError(f"a neuron takes currents of a float type, not {current.dtype}")
        return gelu(current if v_th is None else self.scaled(current, v_th)), ()

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        return self.step(current, (), v_th)[0].to(current.dtype)

    @torch.no_grad()
    def scan(self, current: Tensor, state: object = (), v_th: Tensor | None = None) -> tuple[Tensor, tuple[()]]:
        return self.forward(current, v_th), ()
