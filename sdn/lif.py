"""The leaky integrate-and-fire neuron: its equations, and the naive recurrence every fast path is tested against.

For each time step t, with decay tau, threshold v_th and input current I_t (paper eqs. 1-4)::

    mem_t = tau * u_{t-1}                  decayed potential, what an SDN predicts
    u'_t  = mem_t + I_t                    potential before the spike
    s_t   = H(u'_t - v_th),  H(0) = 1      spike
    u_t   = s_t ? u_r : u'_t               hard reset
    u_t   = u'_t - s_t * v_th              soft reset

Everything here works in units of the threshold: s(I; v_th) = s(I / v_th; 1), so callers divide by v_th first
and ``u_r`` counts in thresholds. The spike in the reset is detached: no gradient flows through it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .errors import UserError
from .surrogate import TRIANGLE, Surrogate, spike

Reset = Literal["hard", "soft"]
Gradient = Literal["sltt", "bptt"]
RESETS: tuple[Reset, ...] = ("hard", "soft")
GRADIENTS: tuple[Gradient, ...] = ("sltt", "bptt")


def check_tau(tau: float) -> float:
    """Return ``tau`` as a float, or raise :class:`UserError` unless 0 < tau < 1 (decay per step)."""
    try:
        value = float(tau)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        value = 0.0
    if not 0.0 < value < 1.0:
        raise UserError(f"tau is the membrane's decay per step and must lie between 0 and 1, not {tau}")
    return value


def check_reset(reset: str) -> Reset:
    """Return ``reset``, or raise :class:`UserError` unless it is "hard" or "soft"."""
    for known in RESETS:
        if reset == known:
            return known
    raise UserError(f"unknown reset {reset!r}; choose one of {', '.join(RESETS)}")


def lif_step(
    current: Tensor,
    u: Tensor,
    tau: float | Tensor,
    u_r: float | Tensor = 0.0,
    reset: Reset = "hard",
    surrogate: Surrogate = TRIANGLE,
) -> tuple[Tensor, Tensor]:
    """One step of the neuron: ``(I_t, u_{t-1}) -> (s_t, u_t)``, both of I_t's shape, e.g. ``(B, H)``.

    ``tau`` and ``u_r`` are numbers or tensors that broadcast, such as ``(H,)``. Threshold 1.
    Gradients flow through time as in ``bptt``; where ``u`` is detached, as in ``sltt``.
    """
    before = tau * u + current
    s = spike(before - 1, surrogate)
    fired = s.detach()
    return s, torch.where(fired > 0, u_r, before) if reset == "hard" else before - fired


def lif_reference(
    current: Tensor,
    tau: float | Tensor,
    u_r: float | Tensor = 0.0,
    reset: Reset = "hard",
    u0: Tensor | None = None,
    gradient: Gradient = "bptt",
    surrogate: Surrogate = TRIANGLE,
) -> tuple[Tensor, Tensor, Tensor]:
    """The naive truth: one Python step per time step.

    Args:
        current: I, ``(..., L)``, in units of the threshold.
        tau, u_r: numbers, or tensors that broadcast against ``current[..., 0]`` (per channel: ``(H,)``).
        u0: initial potential, shape of ``current[..., 0]``; zero by default.
        gradient: "bptt" follows the recurrence; "sltt" cuts it at u_{t-1}, as training with an SDN does
            (a learnt tau still gets its local gradient u_{t-1} dmem).
        surrogate: ds/du' at the distance u' - 1 (:mod:`sdn.surrogate`).

    Returns:
        ``(mem, s, u)``: decayed potential and spikes ``(..., L)``, and the final potential ``(...)``.
    """
    u = torch.zeros_like(current[..., 0]) if u0 is None else u0
    mems, spikes = [], []
    for i_t in current.unbind(-1):
        u = u.detach() if gradient == "sltt" else u
        mems.append(tau * u)
        s, u = lif_step(i_t, u, tau, u_r, reset, surrogate)
        spikes.append(s)
    if not mems:
        return current, current, u
    return torch.stack(mems, -1), torch.stack(spikes, -1), u
