"""Triton building blocks: 16 steps of 32 rows, held one row a lane; how time-last rows are read and written.

A lane owns a row, since its recurrence is sequential, and a program is one warp of 32 rows. Every lane fetches its
next 16 steps as whole 16-byte vectors that together fill 32-byte sectors, with the following 16 steps already in
flight, and keeps them in registers: the (32, 16) tile lies within lanes, so halving it down to single steps with
reshape, permute and split moves no data. No sector is fetched twice and nothing is transposed through shared memory
on its way in. What leaves is written with neighbouring lanes on neighbouring steps: spikes travel across lanes as one
16-bit mask a row, gradients as a tile. A length that is no multiple of 16 leaves rows unaligned: the same code, but
step by step masks and narrow reads.

Products are not contracted with sums (the launches switch that off) and divisions round correctly, so in float32 the
potentials are those of the recurrence in plain PyTorch.
"""

# Device functions carry no annotations of tensors, and their `if` on a constant picks code at compile time.
# ruff: noqa: ANN201, SIM108
from __future__ import annotations

import triton
import triton.language as tl

ROWS = tl.constexpr(32)
"""Rows of a program: the lanes of one warp."""
TILE = tl.constexpr(16)
"""Steps a lane holds at once; the bodies of ``tile`` and ``tile_back`` are written for this number."""


@triton.jit
def divide(a, b):
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def real(x):
    """x in the type that is computed in."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def psi(v, PSI: tl.constexpr, SHARP: tl.constexpr):
    """The surrogate gradient ``PSI`` of :mod:`sdn.surrogate` of width 1 / ``SHARP`` at v; NaN stays NaN."""
    z = tl.abs(v) * SHARP
    if PSI == "triangle":
        w = 1 - z
        return tl.where(w < 0, 0.0, w) * SHARP
    elif PSI == "rectangle":
        return tl.where(z < 1, 0.5 * SHARP, 0.0).to(z.dtype)
    elif PSI == "sigmoid":
        e = tl.exp(-z)
        return e / ((1 + e) * (1 + e)) * SHARP
    else:
        return SHARP / (3.141592653589793 * (1 + z * z))


@triton.jit
def _halves(x):
    """``(R, 2 n)`` -> its first and last n columns."""
    R: tl.constexpr = x.shape[0]
    N: tl.constexpr = x.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(x, (R, 2, N)), (0, 2, 1)))


@triton.jit
def _glue(first, last):
    """Undo ``_halves``."""
    R: tl.constexpr = first.shape[0]
    N: tl.constexpr = first.shape[1] * 2
    return tl.reshape(tl.permute(tl.join(first, last), (0, 2, 1)), (R, N))


@triton.jit
def _where(row, R, L, t, end, RAGGED: tl.constexpr, N: tl.constexpr):
    """Offsets of N steps from t on, and which of them exist. Unless ``RAGGED`` the N steps all do or all do not."""
    cols = tl.arange(0, N) + t
    if RAGGED:
        mask = (row < R)[:, None] & (cols < end)[None, :]
    else:
        mask = (row < tl.where(end > t, R, 0))[:, None]
    return row.to(tl.int64)[:, None] * L + cols[None, :], mask


@triton.jit
def _piece(ptr, row, R, L, t, end, RAGGED: tl.constexpr, N: tl.constexpr):
    offset, mask = _where(row, R, L, t, end, RAGGED, N)
    return real(tl.load(ptr + offset, mask=mask, other=0.0))


@triton.jit
def load_tile(ptr, row, R, L, t, end, RAGGED: tl.constexpr):
    """Steps t .. t + 15 of each lane's own row, zero from ``end`` on, fetched in vectors of 16 bytes."""
    BITS: tl.constexpr = ptr.dtype.element_ty.primitive_bitwidth
    if BITS == 16:
        first = _piece(ptr, row, R, L, t, end, RAGGED, 8)
        last = _piece(ptr, row, R, L, t + 8, end, RAGGED, 8)
    else:
        a = _piece(ptr, row, R, L, t, end, RAGGED, 4)
        b = _piece(ptr, row, R, L, t + 4, end, RAGGED, 4)
        c = _piece(ptr, row, R, L, t + 8, end, RAGGED, 4)
        d = _piece(ptr, row, R, L, t + 12, end, RAGGED, 4)
        first, last = _glue(a, b), _glue(c, d)
    return _glue(first, last)


@triton.jit
def _step(x, u, tau, u_r, SOFT: tl.constexpr):
    before = tau * u + x
    if SOFT:
        after = tl.where(before >= 1, before - 1, before)
    else:
        after = tl.where(before >= 1, u_r, before)
    return before, after


@triton.jit
def _quarter(x, u, tau, u_r, SOFT: tl.constexpr):
    first, last = _halves(x)
    x0, x1 = tl.split(first)
    x2, x3 = tl.split(last)
    b0, u1 = _step(x0, u, tau, u_r, SOFT)
    b1, u2 = _step(x1, u1, tau, u_r, SOFT)
    b2, u3 = _step(x2, u2, tau, u_r, SOFT)
    b3, u4 = _step(x3, u3, tau, u_r, SOFT)
    return _glue(tl.join(b0, b1), tl.join(b2, b3)), _glue(tl.join(u, u1), tl.join(u2, u3)), u4


@triton.jit
def tile(x, u, tau, u_r, SOFT: tl.constexpr):
    """16 steps from potential u: u'_t and u_{t-1}, both ``(R, 16)``, and the potential after them ``(R,)``."""
    first, last = _halves(x)
    x0, x1 = _halves(first)
    x2, x3 = _halves(last)
    b0, p0, u = _quarter(x0, u, tau, u_r, SOFT)
    b1, p1, u = _quarter(x1, u, tau, u_r, SOFT)
    b2, p2, u = _quarter(x2, u, tau, u_r, SOFT)
    b3, p3, u = _quarter(x3, u, tau, u_r, SOFT)
    return _glue(_glue(b0, b1), _glue(b2, b3)), _glue(_glue(p0, p1), _glue(p2, p3)), u


@triton.jit
def _back_step(d, before, later, tau, SOFT: tl.constexpr):
    if SOFT:
        g = d + later
    else:
        g = tl.where(before >= 1, d, d + later)
    return g, tau * g


@triton.jit
def _back_quarter(d, before, later, tau, SOFT: tl.constexpr):
    first, last = _halves(d)
    d0, d1 = tl.split(first)
    d2, d3 = tl.split(last)
    first, last = _halves(before)
    b0, b1 = tl.split(first)
    b2, b3 = tl.split(last)
    g3, c2 = _back_step(d3, b3, later, tau, SOFT)
    g2, c1 = _back_step(d2, b2, c2, tau, SOFT)
    g1, c0 = _back_step(d1, b1, c1, tau, SOFT)
    g0, earlier = _back_step(d0, b0, c0, tau, SOFT)
    return _glue(tl.join(g0, g1), tl.join(g2, g3)), _glue(tl.join(c0, c1), tl.join(c2, later)), earlier


@triton.jit
def tile_back(d, before, later, tau, SOFT: tl.constexpr):
    """16 steps backwards, d = grad psi(u' - 1), from ``later`` = tau g_{t+1} of the last step.

    Returns g_t and tau g_{t+1}, both ``(R, 16)``, and tau g_t of the first step ``(R,)``.
    """
    first, last = _halves(d)
    d0, d1 = _halves(first)
    d2, d3 = _halves(last)
    first, last = _halves(before)
    b0, b1 = _halves(first)
    b2, b3 = _halves(last)
    g3, c3, later = _back_quarter(d3, b3, later, tau, SOFT)
    g2, c2, later = _back_quarter(d2, b2, later, tau, SOFT)
    g1, c1, later = _back_quarter(d1, b1, later, tau, SOFT)
    g0, c0, later = _back_quarter(d0, b0, later, tau, SOFT)
    return _glue(_glue(g0, g1), _glue(g2, g3)), _glue(_glue(c0, c1), _glue(c2, c3)), later


@triton.jit
def store_tile(ptr, values, row, R, L, t, end, RAGGED: tl.constexpr):
    offset, mask = _where(row, R, L, t, end, RAGGED, TILE)
    tl.store(ptr + offset, values.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def rows_here():
    """The rows of this program; its last ones may lie beyond R."""
    return tl.program_id(0) * ROWS + tl.arange(0, ROWS)


@triton.jit
def neuron_of(taus, v_ths, u_rs, row, R, H):
    """tau, v_th and u_r of each lane, from per-channel vectors ``(H,)``."""
    h, mask = row % H, row < R
    return (
        tl.load(taus + h, mask=mask, other=0.0),
        tl.load(v_ths + h, mask=mask, other=1.0),
        tl.load(u_rs + h, mask=mask, other=0.0),
    )
