"""Triton kernels of the exact LIF neuron, backward. Potentials are recomputed from I and the seams of the forward pass.

With the seams at hand every block of SEAM steps is recomputed without the others, so time can be cut anywhere at a
seam. What is left of the recurrence in ``bptt`` is linear: over a chunk, tau g of its first step is an affine
function of tau g_{t+1} of its last, so a first launch finds each chunk's offset and slope and a second starts from
their composition. A spike (hard reset) makes the slope exactly zero.
"""

# Device functions have no type annotations.
# ruff: noqa: ANN201
from __future__ import annotations

import triton
import triton.language as tl

from .gpu_tile import TILE, divide, load_tile, neuron_of, psi, rows_here, store_tile, tile, tile_back


@triton.jit
def _seam(seams, row, R, L, t, SEAM: tl.constexpr):
    return tl.load(seams + row.to(tl.int64) * tl.cdiv(L, SEAM) + t // SEAM, mask=row < R, other=0.0)


@triton.jit
def _scaled(I, v_th, SCALED: tl.constexpr):
    if SCALED:
        return divide(I, v_th[:, None])
    else:
        return I


@triton.jit
def _store_sums(sums, of_tau, of_v_th, of_u_r, row, R):
    """Row ``program_id(1)`` of ``(chunks, 3, R)``."""
    at = sums + tl.program_id(1).to(tl.int64) * 3 * R + row
    tl.store(at, of_tau, mask=row < R)
    tl.store(at + R, of_v_th, mask=row < R)
    tl.store(at + 2 * R, of_u_r, mask=row < R)


@triton.jit
def lif_back_local(
    grad, I, seams, dI, sums, taus, v_ths, u_rs, R, H, L, chunk,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, SUMS: tl.constexpr, SEAM: tl.constexpr,
    PSI: tl.constexpr, SHARP: tl.constexpr,
):  # fmt: skip
    """``sltt``: g_t = grad_t psi(u'_t - 1), chunk ``program_id(1)`` from its seam."""
    row = rows_here()
    begin = tl.program_id(1) * chunk
    end = tl.minimum(begin + chunk, L)
    tau, v_th, u_r = neuron_of(taus, v_ths, u_rs, row, R, H)
    inverse = tl.full(tau.shape, 1.0, tau.dtype)
    if SCALED:
        inverse = divide(inverse, v_th)
    u = _seam(seams, row, R, L, begin, SEAM)
    of_tau, of_v_th = tl.zeros_like(tau), tl.zeros_like(tau)
    next_x = load_tile(I, row, R, L, begin, end, RAGGED)
    next_g = load_tile(grad, row, R, L, begin, end, RAGGED)
    for t in range(begin, end, TILE):
        x, g = _scaled(next_x, v_th, SCALED), next_g
        next_x = load_tile(I, row, R, L, t + TILE, end, RAGGED)
        next_g = load_tile(grad, row, R, L, t + TILE, end, RAGGED)
        before, previous, u = tile(x, u, tau, u_r, SOFT)
        g = g * psi(before - 1, PSI, SHARP)
        if SUMS:
            of_tau += tl.sum(g * previous, axis=1)
            if SCALED:
                of_v_th -= tl.sum(g * x, axis=1)
        store_tile(dI, g * inverse[:, None], row, R, L, t, end, RAGGED)
    if SUMS:
        _store_sums(sums, of_tau, of_v_th * inverse, tl.zeros_like(tau), row, R)


@triton.jit
def _potentials(
    I, seams, tau, v_th, u_r, row, R, L, base, end,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, SEAM: tl.constexpr,
):  # fmt: skip
    """The potential before each tile of the block of SEAM steps at ``base``: ``(rows, SEAM / TILE)``."""
    column = tl.arange(0, SEAM // TILE)[None, :]
    u = _seam(seams, row, R, L, base, SEAM)
    starts = tl.where(column == 0, u[:, None], tl.zeros_like(u)[:, None])
    following = load_tile(I, row, R, L, base, end, RAGGED)
    for k in range(1, SEAM // TILE):
        x = _scaled(following, v_th, SCALED)
        following = load_tile(I, row, R, L, base + k * TILE, end, RAGGED)
        _, _, u = tile(x, u, tau, u_r, SOFT)
        starts = tl.where(column == k, u[:, None], starts)
    return starts


@triton.jit
def lif_back(
    grad, I, seams, offset, slope, dI, sums, taus, v_ths, u_rs, R, H, L, chunk, chunks,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, SUMS: tl.constexpr, SEAM: tl.constexpr,
    PSI: tl.constexpr, SHARP: tl.constexpr, ENDS: tl.constexpr,
):  # fmt: skip
    """``bptt``: g_t = grad_t psi(u'_t - 1) + (soft or not s_t) tau g_{t+1}, chunk ``program_id(1)``, backwards.

    ``offset`` and ``slope`` ``(chunks, R)``: tau g at a chunk's first step = offset + slope * tau g_{t+1} at its last.
    With ``ENDS`` these are all that is written, otherwise they are read and dI and the sums are written.
    """
    row, c = rows_here(), tl.program_id(1)
    begin = c * chunk
    end = tl.minimum(begin + chunk, L)
    tau, v_th, u_r = neuron_of(taus, v_ths, u_rs, row, R, H)
    inverse = tl.full(tau.shape, 1.0, tau.dtype)
    if SCALED:
        inverse = divide(inverse, v_th)
    later, share = tl.zeros_like(tau), tl.full(tau.shape, 1.0, tau.dtype)
    if not ENDS:
        for done in range(0, chunks - 1 - c):
            at = row.to(tl.int64) + (chunks - 1 - done) * R
            factor = tl.load(slope + at, mask=row < R, other=0.0)
            rest = tl.where(factor == 0, 0.0, factor * later)
            later = tl.load(offset + at, mask=row < R, other=0.0) + rest
    of_tau, of_v_th, of_u_r = tl.zeros_like(tau), tl.zeros_like(tau), tl.zeros_like(tau)
    column = tl.arange(0, SEAM // TILE)[None, :]
    blocks = tl.cdiv(end - begin, SEAM)
    for block in range(0, blocks):
        base = begin + (blocks - 1 - block) * SEAM
        last = base + SEAM - TILE
        next_x = load_tile(I, row, R, L, last, end, RAGGED)
        next_g = load_tile(grad, row, R, L, last, end, RAGGED)
        starts = _potentials(I, seams, tau, v_th, u_r, row, R, L, base, end, SCALED, SOFT, RAGGED, SEAM)
        for k in range(0, SEAM // TILE):
            t = last - k * TILE
            x, g = _scaled(next_x, v_th, SCALED), next_g
            ahead = tl.where(t > base, t - TILE, end)
            next_x = load_tile(I, row, R, L, ahead, end, RAGGED)
            next_g = load_tile(grad, row, R, L, ahead, end, RAGGED)
            u = tl.sum(tl.where(column == SEAM // TILE - 1 - k, starts, 0.0), axis=1)
            before, previous, _ = tile(x, u, tau, u_r, SOFT)
            if ENDS:
                _, _, share = tile_back(tl.zeros_like(before), before, share, tau, SOFT)
            g, laters, later = tile_back(g * psi(before - 1, PSI, SHARP), before, later, tau, SOFT)
            if not ENDS:
                store_tile(dI, g * inverse[:, None], row, R, L, t, end, RAGGED)
                if SUMS:
                    of_tau += tl.sum(g * previous, axis=1)
                    if SCALED:
                        of_v_th -= tl.sum(g * x, axis=1)
                    if not SOFT:
                        of_u_r += tl.sum(tl.where(before >= 1, laters, 0.0), axis=1)
    if ENDS:
        at = c.to(tl.int64) * R + row
        tl.store(offset + at, later, mask=row < R)
        tl.store(slope + at, share, mask=row < R)
    elif SUMS:
        _store_sums(sums, of_tau, of_v_th * inverse, of_u_r, row, R)
