# ruff: noqa: ANN201
"""Products of small matrices in registers, for the mix where spikes are many, or values graded.

A tile is ROWS steps of one sample, its rows an odd number of cache lines apart; TILE of them by two vectors of columns
stay in registers while the sum over the depth grows.
"""

from __future__ import annotations

from sdn.kernels.simd import WIDTH, at_least, broadcast, fma, load, select, splat, store

from .compiled import jit

ROWS = 64
TILE = 8


@jit
def gather(source, base, rows, H, graded, keep, masked, mask, tile, width):
    """``m ⊙ s`` of ``rows`` steps into ``tile``, and zeros up to a multiple of TILE; not ``graded``: s = H(u' - 1)."""
    one, zero = splat(source.dtype.type(1)), splat(source.dtype.type(0))
    for r in range(rows):
        for c in range(0, H, WIDTH):
            s = load(source, base + r * H + c)
            if not graded:
                s = select(at_least(s, one), one, zero)
            if masked:
                s = s * load(keep, mask + c)
            store(tile, r * width + c, s)
    for r in range(rows, (rows + TILE - 1) // TILE * TILE):
        for c in range(0, H, WIDTH):
            store(tile, r * width + c, zero)


@jit
def _grow(source, at, hop, gap, panel, left, right, step, depth):
    """``Σ_k source[at + k hop + j gap] panel[left + k step]``, j < TILE, and of ``right``: two vectors of TILE rows."""
    zero = splat(source.dtype.type(0))
    a0, a1, a2, a3, a4, a5, a6, a7 = zero, zero, zero, zero, zero, zero, zero, zero
    b0, b1, b2, b3, b4, b5, b6, b7 = zero, zero, zero, zero, zero, zero, zero, zero
    for k in range(depth):
        v, w, i = load(panel, left + k * step), load(panel, right + k * step), at + k * hop
        x = broadcast(source, i)
        a0, b0 = fma(x, v, a0), fma(x, w, b0)
        x = broadcast(source, i + gap)
        a1, b1 = fma(x, v, a1), fma(x, w, b1)
        x = broadcast(source, i + 2 * gap)
        a2, b2 = fma(x, v, a2), fma(x, w, b2)
        x = broadcast(source, i + 3 * gap)
        a3, b3 = fma(x, v, a3), fma(x, w, b3)
        x = broadcast(source, i + 4 * gap)
        a4, b4 = fma(x, v, a4), fma(x, w, b4)
        x = broadcast(source, i + 5 * gap)
        a5, b5 = fma(x, v, a5), fma(x, w, b5)
        x = broadcast(source, i + 6 * gap)
        a6, b6 = fma(x, v, a6), fma(x, w, b6)
        x = broadcast(source, i + 7 * gap)
        a7, b7 = fma(x, v, a7), fma(x, w, b7)
    return a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7


@jit
def product(tile, width, panel, at, depth, row, out, to, stride, rows, keep, masked, mask):
    """TILE rows of the tile times two panels ``(depth, WIDTH)``, masked; ``rows`` of them to rows of ``out``."""
    a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = _grow(
        tile, row, 1, width, panel, at, at + depth * WIDTH, WIDTH, depth
    )
    m, n = splat(tile.dtype.type(1)), splat(tile.dtype.type(1))
    if masked:
        m, n = load(keep, mask), load(keep, mask + WIDTH)
    _two(out, to, a0 * m, b0 * n)
    if rows > 1:
        _two(out, to + stride, a1 * m, b1 * n)
    if rows > 2:
        _two(out, to + 2 * stride, a2 * m, b2 * n)
    if rows > 3:
        _two(out, to + 3 * stride, a3 * m, b3 * n)
    if rows > 4:
        _two(out, to + 4 * stride, a4 * m, b4 * n)
    if rows > 5:
        _two(out, to + 5 * stride, a5 * m, b5 * n)
    if rows > 6:
        _two(out, to + 6 * stride, a6 * m, b6 * n)
    if rows > 7:
        _two(out, to + 7 * stride, a7 * m, b7 * n)


@jit
def _two(out, to, a, b):
    store(out, to, a)
    store(out, to + WIDTH, b)


@jit
def _add(out, to, a, b):
    store(out, to, load(out, to) + a)
    store(out, to + WIDTH, load(out, to + WIDTH) + b)


@jit
def outer(tile, width, other, stride, rows, H, out):
    """``out (H, 2H) += tileᵀ other`` over ``rows`` rows of tile ``(., H)`` and other ``(., 2H)``."""
    for column in range(0, 2 * H, 2 * WIDTH):
        for h in range(0, H, TILE):
            a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = _grow(
                tile, h, width, 1, other, column, column + WIDTH, stride, rows
            )
            to = h * 2 * H + column
            _add(out, to, a0, b0)
            _add(out, to + 2 * H, a1, b1)
            _add(out, to + 4 * H, a2, b2)
            _add(out, to + 6 * H, a3, b3)
            _add(out, to + 8 * H, a4, b4)
            _add(out, to + 10 * H, a5, b5)
            _add(out, to + 12 * H, a6, b6)
            _add(out, to + 14 * H, a7, b7)
