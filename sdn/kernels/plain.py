"""Kernels in plain PyTorch, for any device: a few hundred Python steps whatever the length, not one a time step.

Signatures as in :mod:`sdn.kernels`. Every row is cut into blocks of SEAM steps that advance together, time first, so
that one step is an operation on R * L / SEAM neurons. Backwards the blocks start from the seams the forward pass left.
Forwards the seams are not known yet: all blocks run from a guess, then those whose guess was not the potential their
predecessor reached run again until all seams agree. A round settles at least the first wrong block of every row, so
this ends, and the result is exact; most often after two or three rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from ..surrogate import TRIANGLE, Surrogate
from . import SEAM

_EAGER_ROUNDS = 4
_SDN_STEPS = 1 << 16


def _blocks(I: Tensor, dtype: torch.dtype) -> Tensor:
    """``(R, L) -> (SEAM, R, blocks)``, a copy, zero after the end."""
    R, L = I.shape
    blocks = -(-L // SEAM)
    return pad(I.to(dtype), (0, blocks * SEAM - L)).view(R, blocks, SEAM).permute(2, 0, 1).contiguous()


def _rows(x: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """``(SEAM, R, blocks) -> (R, L)``."""
    return x.to(dtype).permute(1, 2, 0).reshape(x.shape[1], -1)[:, :L].contiguous()


def _lanes(vector: Tensor, R: int, blocks: int) -> Tensor:
    """A value per channel ``(H,) -> (R, blocks)``."""
    return vector.repeat(R // len(vector)).unsqueeze(1).repeat(1, blocks)


def _after(before: Tensor, u_r: Tensor, soft: bool) -> Tensor:
    fired = before >= 1
    return before - fired.to(before.dtype) if soft else torch.where(fired, u_r, before)


def _scan(x: Tensor, u: Tensor, tau: Tensor, u_r: Tensor, soft: bool) -> Tensor:
    """Turn the currents ``x (steps, lanes)`` into potentials before the spike, in place; returns the last potential."""
    for x_t in x.unbind(0):
        x_t += tau * u
        u = _after(x_t, u_r, soft)
    return u


def _same(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) | (a.isnan() & b.isnan())


@torch.no_grad()
def lif_forward(
    I: Tensor, tau: Tensor, v_th: Tensor | None, u_r: Tensor, soft: bool, u0: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    R, L = I.shape
    start = tau.new_zeros(R) if u0 is None else u0.to(tau.dtype, copy=True)
    if not I.numel():
        return torch.empty_like(I), start, tau.new_empty(R, -(-L // SEAM))
    x = _blocks(I, tau.dtype)
    blocks = x.shape[2]
    if v_th is not None:
        x /= _lanes(v_th, R, blocks)
    x, tau, u_r = x.flatten(1), _lanes(tau, R, blocks).flatten(), _lanes(u_r, R, blocks).flatten()
    potential = x.clone()
    seams = torch.cat([start.unsqueeze(1), start.new_zeros(R, blocks - 1)], 1)
    ends = _scan(potential, seams.flatten(), tau, u_r, soft).view(R, blocks)
    for rounds in range(blocks):
        wrong = torch.zeros_like(seams, dtype=torch.bool)
        wrong[:, 1:] = ~_same(seams[:, 1:], ends[:, :-1])
        if rounds >= _EAGER_ROUNDS:  # guesses do not help here: only what is certain, a block of each row
            wrong &= wrong.cumsum(1) == 1
        lanes = wrong.flatten().nonzero().squeeze(1)
        if not len(lanes):
            break
        seams.view(-1)[lanes] = ends.view(-1)[lanes - 1]
        again = x[:, lanes]
        ends.view(-1)[lanes] = _scan(again, seams.view(-1)[lanes], tau[lanes], u_r[lanes], soft)
        potential[:, lanes] = again
    # The end of the last block is not that of the row where zeros were appended.
    last = potential.view(SEAM, R, blocks)[(L - 1) % SEAM, :, -1]
    u = _after(last, u_r.view(R, blocks)[:, -1], soft)
    return _rows((potential >= 1).view(SEAM, R, blocks), L, I.dtype), u, seams


@torch.no_grad()
def lif_backward(
    grad: Tensor,
    I: Tensor,
    seams: Tensor,
    tau: Tensor,
    v_th: Tensor | None,
    u_r: Tensor,
    soft: bool,
    through_time: bool,
    want_sums: bool,
    surrogate: Surrogate = TRIANGLE,
) -> tuple[Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    (R, L), sums = I.shape, tau.new_zeros(3, I.shape[0] if want_sums else 0)
    if not I.numel():
        return torch.empty_like(I), sums
    x = _blocks(I, tau.dtype)
    blocks = x.shape[2]
    scale = None if v_th is None else _lanes(v_th, R, blocks)
    if scale is not None:
        x /= scale
    tau, u_r = _lanes(tau, R, blocks), _lanes(u_r, R, blocks)
    potential = x.clone()
    _scan(potential, seams, tau, u_r, soft)
    g = _blocks(grad, tau.dtype) * surrogate(potential - 1)
    carry = torch.zeros_like(seams)
    if through_time:
        carry = _follow(
            g, tau, torch.ones_like(potential) if soft else (potential < 1).to(tau.dtype).where(~potential.isnan(), 1)
        )
    if want_sums:
        u = torch.cat([seams.unsqueeze(0), _after(potential[:-1], u_r, soft)])
        sums[0] = (g * u).sum((0, 2))
        if scale is not None:
            sums[1] = -(g * x / scale).sum((0, 2))
        if through_time and not soft:
            sums[2] = torch.where(potential >= 1, torch.cat([tau * g[1:], carry.unsqueeze(0)]), 0).sum((0, 2))
    return _rows(g if scale is None else g / scale, L, I.dtype), sums


def _follow(g: Tensor, tau: Tensor, keep: Tensor) -> Tensor:
    """Solve g_t += keep_t tau g_{t+1} over all of time, in place; returns tau g of the step after each block.

    Each block first without what comes after it; then, as the recurrence is linear, the rest is its known factor.
    """
    steps, _, blocks = g.shape
    after = torch.zeros_like(tau)
    for t in range(steps - 1, -1, -1):
        g[t] += torch.where(keep[t] > 0, after, 0)
        after = tau * g[t]
    factor = keep * torch.cat([(keep * tau)[1:], torch.ones_like(keep[:1])]).flip(0).cumprod(0).flip(0)
    carry, through = torch.zeros_like(tau), tau * factor[0]
    for b in range(blocks - 2, -1, -1):
        passed = through[:, b + 1] * carry[:, b + 1]
        carry[:, b] = after[:, b + 1] + torch.where(through[:, b + 1] == 0, 0, passed)
    g += torch.where(factor == 0, 0, factor * carry)
    return carry


@torch.no_grad()
def sdn_forward(
    I: Tensor,
    v_th: Tensor | None,
    weights: Tensor,
    sizes: tuple[int, int, int],
    keep_mem: bool,
) -> tuple[Tensor, Tensor]:
    """See :mod:`sdn.kernels`. So many rows at a time that the channels of a block stay in a cache."""
    (R, L), (d, k, n) = I.shape, sizes
    *layers, out_weight, out_bias = weights.split([d * k, d, d * d, d] * n + [d, 1])
    s, mem = torch.empty_like(I), weights.new_empty(R if keep_mem else 0, L)
    if not I.numel():
        return s, mem
    x = _scaled(I, v_th, weights.dtype)
    size = max(1, _SDN_STEPS // L)
    for first in range(0, R, size):
        rows = slice(first, first + size)
        h = pad(x[rows].unsqueeze(1), (k, -1))
        for i in range(0, len(layers), 4):
            conv_weight, conv_bias, mix_weight, mix_bias = layers[i : i + 4]
            h = pad(h, (k - 1, 0)) if i else h
            a = torch.relu_(conv1d(h, conv_weight.view(d, 1, k), conv_bias, groups=d if i else 1))
            h = torch.relu_(conv1d(a, mix_weight.view(d, d, 1), mix_bias))
        m = conv1d(h, out_weight.view(1, d, 1), out_bias).squeeze(1)
        s[rows] = (m + x[rows] >= 1).to(s.dtype)
        if keep_mem:
            mem[rows] = m
    return s, mem


@torch.no_grad()
def sdn_backward(
    grad: Tensor, I: Tensor, mem: Tensor, v_th: Tensor | None, want_sums: bool, surrogate: Surrogate = TRIANGLE
) -> tuple[Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    x = _scaled(I, v_th, mem.dtype)
    g = grad * surrogate(mem + x - 1)
    sums = mem.new_zeros(len(I) if want_sums else 0)
    if v_th is None:
        return g.to(I.dtype), sums
    scale = v_th.repeat(len(I) // len(v_th)).unsqueeze(1)
    g = g / scale
    if want_sums:
        sums = -(g * I).sum(1) / scale.squeeze(1)
    return g.to(I.dtype), sums


def _scaled(I: Tensor, v_th: Tensor | None, dtype: torch.dtype) -> Tensor:
    x = I.to(dtype)
    return x if v_th is None else x / v_th.repeat(len(I) // len(v_th)).unsqueeze(1)
