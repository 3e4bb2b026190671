"""The neuron operators: one entry point each, which picks the fastest exact implementation for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from .lif import Gradient, Reset, lif_reference


def _scaled(current: Tensor, v_th: Tensor | None) -> Tensor:
    return current if v_th is None else current / v_th.unsqueeze(-1)


def lif(
    current: Tensor,
    tau: float | Tensor,
    v_th: Tensor | None = None,
    u_r: float | Tensor = 0.0,
    reset: Reset = "hard",
    gradient: Gradient = "sltt",
) -> Tensor:
    """Spikes of an exact LIF neuron; current ``(B, H, L)``, ``tau``/``u_r`` numbers or ``(H,)``, ``v_th`` ``(H,)``."""
    return lif_reference(_scaled(current, v_th), tau, u_r, reset, gradient=gradient)[1]


def lif_scan(
    current: Tensor,
    u0: Tensor | None,
    tau: float | Tensor,
    v_th: Tensor | None = None,
    u_r: float | Tensor = 0.0,
    reset: Reset = "hard",
) -> tuple[Tensor, Tensor]:
    """``(s, u_L)`` without gradient, from the initial potential ``u0 (B, H)`` (None: zero), for chunked inference."""
    with torch.no_grad():
        _, s, u = lif_reference(_scaled(current, v_th), tau, u_r, reset, u0)
        return s, u
