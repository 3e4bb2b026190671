"""Triton kernels of the exact LIF neuron, forward: one pass, or chunks of time that are guessed, verified and repaired.

How few long rows fill the chip: time is cut into chunks. ``lif_guess`` starts each a few steps early from u = 0 and
writes down the potential it *assumed* at the chunk's first step and the one it *reached* after its last.
``lif_repair`` runs the chunks whose assumption differs from what their predecessor reached, all at once;
``lif_settle`` then walks the chunks of each row in order and runs again whatever is still wrong. A chunk counts as
right only when the two potentials are equal, so the result is that of one pass, always; no round trip to the host.
"""

# Device functions carry no annotations of tensors, and their `if` on a constant picks code at compile time.
# ruff: noqa: ANN201, SIM108
from __future__ import annotations

import triton
import triton.language as tl

from .gpu_tile import TILE, divide, load_tile, neuron_of, rows_here, store_tile, tile


@triton.jit
def _run(
    I, s, seams, u, tau, v_th, u_r, row, R, L, begin, end,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, SEAM: tl.constexpr, WRITE: tl.constexpr,
):  # fmt: skip
    """The potential after the steps ``begin`` .. ``end`` - 1 from u; writes their spikes and seams if ``WRITE``."""
    following = load_tile(I, row, R, L, begin, end, RAGGED)
    for t in range(begin, end, TILE):
        x = following
        following = load_tile(I, row, R, L, t + TILE, end, RAGGED)
        if SCALED:
            x = divide(x, v_th[:, None])
        if WRITE:
            seam = seams + row.to(tl.int64) * tl.cdiv(L, SEAM) + t // SEAM
            tl.store(seam, u, mask=(row < R) & (t % SEAM == 0))
        before, previous, after = tile(x, u, tau, u_r, SOFT)
        step = tl.arange(0, TILE)[None, :]
        if WRITE:
            fired = tl.sum(tl.where(before >= 1, 1 << step, 0), axis=1)
            spikes = tl.where((fired[:, None] >> step) & 1 != 0, 1.0, 0.0)
            store_tile(s, spikes, row, R, L, t, end, RAGGED)
        if RAGGED:
            # The potential after step end - 1 is the one before step end, if that lies inside this tile.
            inside = tl.sum(tl.where(step == end - t, previous, 0.0), axis=1)
            after = tl.where(end < t + TILE, inside, after)
        u = after
    return u


@triton.jit
def lif_guess(
    I, s, seams, assumed, reached, taus, v_ths, u_rs, u0, R, H, L, chunk,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, FROM_ZERO: tl.constexpr, EARLY: tl.constexpr,
    SEAM: tl.constexpr,
):  # fmt: skip
    """Chunk ``program_id(1)``: spikes and seams from u0 (first chunk), or from zero ``EARLY`` steps before its first.

    ``assumed`` and ``reached``: ``(chunks, R)``. ``EARLY`` = 0 says that there is one chunk: the whole pass.
    """
    row, c = rows_here(), tl.program_id(1)
    begin = c * chunk
    end = tl.minimum(begin + chunk, L)
    tau, v_th, u_r = neuron_of(taus, v_ths, u_rs, row, R, H)
    if FROM_ZERO:
        u = tl.zeros_like(tau)
    else:
        u = tl.load(u0 + row, mask=row < tl.where(c == 0, R, 0), other=0.0)
    at = c.to(tl.int64) * R + row
    if EARLY > 0:
        lead = tl.where(c == 0, 0, EARLY)
        u = _run(I, s, seams, u, tau, v_th, u_r, row, R, L, begin - lead, begin, SCALED, SOFT, False, SEAM, False)
        tl.store(assumed + at, u, mask=row < R)
    u = _run(I, s, seams, u, tau, v_th, u_r, row, R, L, begin, end, SCALED, SOFT, RAGGED, SEAM, True)
    tl.store(reached + at, u, mask=row < R)


@triton.jit
def _differ(a, b, row, R):
    """Whether a and b differ in any row; two NaN are equal."""
    wrong = (row < R) & (a != b) & ((a == a) | (b == b))
    return tl.max(wrong.to(tl.int32), axis=0) != 0


@triton.jit
def lif_repair(
    I, s, seams, assumed, reached, reached_now, taus, v_ths, u_rs, R, H, L, chunk,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, SEAM: tl.constexpr,
):  # fmt: skip
    """Run chunk ``program_id(1)`` again if it assumed anything but what its predecessor ``reached``.

    Writes to ``reached_now``, since the neighbours still read ``reached``.
    """
    row, c = rows_here(), tl.program_id(1)
    before, at = tl.maximum(c - 1, 0).to(tl.int64) * R + row, c.to(tl.int64) * R + row
    right = tl.load(reached + before, mask=row < R, other=0.0)
    u = tl.load(reached + at, mask=row < R, other=0.0)
    if (c > 0) & _differ(right, tl.load(assumed + at, mask=row < R, other=0.0), row, R):
        tau, v_th, u_r = neuron_of(taus, v_ths, u_rs, row, R, H)
        begin = c * chunk
        end = tl.minimum(begin + chunk, L)
        tl.store(assumed + at, right, mask=row < R)
        u = _run(I, s, seams, right, tau, v_th, u_r, row, R, L, begin, end, SCALED, SOFT, RAGGED, SEAM, True)
    tl.store(reached_now + at, u, mask=row < R)


@triton.jit
def lif_settle(
    I, s, seams, assumed, reached, last, taus, v_ths, u_rs, R, H, L, chunk, chunks,
    SCALED: tl.constexpr, SOFT: tl.constexpr, RAGGED: tl.constexpr, SEAM: tl.constexpr,
):  # fmt: skip
    """Walk the chunks in order, run again every one that is still wrong, and write the ``last`` potential ``(R,)``."""
    row = rows_here()
    tau, v_th, u_r = neuron_of(taus, v_ths, u_rs, row, R, H)
    u = tl.load(reached + row, mask=row < R, other=0.0)
    for c in range(1, chunks):
        at = row.to(tl.int64) + c * R
        if _differ(u, tl.load(assumed + at, mask=row < R, other=0.0), row, R):
            begin = c * chunk
            end = tl.minimum(begin + chunk, L)
            u = _run(I, s, seams, u, tau, v_th, u_r, row, R, L, begin, end, SCALED, SOFT, RAGGED, SEAM, True)
        else:
            u = tl.load(reached + at, mask=row < R, other=0.0)
    tl.store(last + row, u, mask=row < R)
