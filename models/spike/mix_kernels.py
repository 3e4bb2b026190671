"""The mix of a layer, driven by its spikes: rows of weights are added up, one for each neuron that fired.

Signals are ``(B, L, H)``, channels last. With the potentials before the spike u', spikes s = H(u' - 1), and channel
masks m, m' as in :mod:`models.spike.mix`::

    [a; b] = W (m ⊙ s) + bias,   y = x + m' ⊙ a σ(b)

The sum over the neurons that fired stays in registers while it grows, so its cost is the firing rate times that of a
dense product. The gradient of W is such a sum too, over the steps at which a neuron fired; that of the spikes is dense,
a product of small matrices in registers. Steps are taken ROWS at a time, whose numbers stay in the cache; where more
than DENSE of their neurons fire, or values are ``graded`` and no spikes, the sums are dense products too.
"""

from __future__ import annotations

import numpy as np

from sdn.kernels.simd import WIDTH, aligned, at_least, bits, exp, fma, item, load, lowest_bit, splat, store

from .compiled import jit
from .dense_kernels import ROWS, TILE, gather, outer, product

DENSE = 0.4
"""Firing rate of a piece above which its sums are dense products."""


@jit
def lay_out(first, last, weight, rows, panels, columns, H) -> None:
    """W ``(2H, H)`` as the passes read it, for blocks ``first`` to ``last`` of WIDTH of its rows.

    ``rows``, for sums over spikes: the weights of a neuron to 4 vectors of a and 4 of b are neighbours, in panels of 8
    vectors ``(H / 4 WIDTH, H, 2, 4, WIDTH)``, and of 2 for what is left of H, ``(., H, 2, 1, WIDTH)``. For products:
    ``panels (2H / WIDTH, H, WIDTH)`` of W's transpose, and ``columns (H / WIDTH, 2H, WIDTH)``.
    """
    full = H // (4 * WIDTH) * 4 * WIDTH
    for block in range(first, last):
        row = block * WIDTH
        half = row // H
        column = row - half * H
        if column < full:
            vector = column % (4 * WIDTH)
            to, step = 2 * (column - vector) * H + half * 4 * WIDTH + vector, 8 * WIDTH
        else:
            to, step = 2 * column * H + half * WIDTH, 2 * WIDTH
        for h in range(H):
            for lane in range(WIDTH):
                value = weight[(row + lane) * H + h]
                rows[to + h * step + lane] = value
                panels[row * H + h * WIDTH + lane] = value
        for r in range(row, row + WIDTH):
            for h in range(0, H, WIDTH):
                store(columns, 2 * h * H + r * WIDTH, load(weight, r * H + h))


@jit
def add_up(first, last, parts, slots, out, H) -> None:
    """Sum of ``parts (slots, H, 2H)``, transposed: ``out (2H, H)``, for blocks of WIDTH of its columns."""
    block = aligned(WIDTH * 2 * H, out.dtype)
    for h in range(first * WIDTH, last * WIDTH, WIDTH):
        for i in range(0, WIDTH * 2 * H, WIDTH):
            value = load(parts, h * 2 * H + i)
            for slot in range(1, slots):
                value = value + load(parts, (slot * H + h) * 2 * H + i)
            store(block, i, value)
        for column in range(2 * H):
            for lane in range(WIDTH):
                out[column * H + h + lane] = block[lane * 2 * H + column]


@jit
def _fired(before, row, keep, masked, sample, H, fired):
    """Write which channels fired at a step to ``fired``; returns how many. Silenced channels do not count."""
    one, zero = splat(before.dtype.type(1)), before.dtype.type(0)
    count = 0
    for channel in range(0, H, WIDTH):
        left = bits(at_least(load(before, row + channel), one))
        while left:
            h = channel + lowest_bit(left)
            left &= left - 1
            fired[count] = h
            count += not masked or keep[sample * H + h] > zero
    return count


@jit
def _count(before, base, rows, H, keep, masked, sample, fired, counts):
    """:func:`_fired` of all ``rows``, row r from ``fired[r H]`` on; returns how many in all."""
    found = 0
    for r in range(rows):
        counts[r] = _fired(before, base + r * H, keep, masked, sample, H, fired[r * H :])
        found += counts[r]
    return found


@jit
def _many(before, base, rows, H, graded, keep, masked, sample, fired, counts):
    """Whether the sums of a piece are to be dense products; if not, who fired is as :func:`_count` leaves it."""
    return graded or _count(before, base, rows, H, keep, masked, sample, fired, counts) > DENSE * rows * H


@jit
def _dense(before, base, graded, keep, masked, sample, spikes, width, panels, tile, wide, rows, H):
    """Gather the piece into ``spikes``, and sum all rows of weights into the tile, ``(rows, 2H)``."""
    gather(before, base, rows, H, graded, keep, masked, sample * H, spikes, width)
    for column in range(0, 2 * H, 2 * WIDTH):
        for r in range(0, rows, TILE):
            product(
                spikes, width, panels, column * H, H, r * width, tile, r * wide + column, wide, TILE, spikes, False, 0
            )  # fmt: skip


@jit
def _sum8(rows, base, fired, first, count):
    """The sum of the rows ``fired`` of a panel of 8 vectors, which begins at ``base``."""
    a = splat(rows.dtype.type(0))
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    for k in range(first, first + count):
        at = base + item(fired, k) * 8 * WIDTH
        a = a + load(rows, at)
        b = b + load(rows, at + WIDTH)
        c = c + load(rows, at + 2 * WIDTH)
        d = d + load(rows, at + 3 * WIDTH)
        e = e + load(rows, at + 4 * WIDTH)
        f = f + load(rows, at + 5 * WIDTH)
        g = g + load(rows, at + 6 * WIDTH)
        h = h + load(rows, at + 7 * WIDTH)
    return a, b, c, d, e, f, g, h


@jit
def _sum2(rows, base, fired, first, count):
    """The same of a panel of 2 vectors."""
    a = splat(rows.dtype.type(0))
    b = a
    for k in range(first, first + count):
        at = base + item(fired, k) * 2 * WIDTH
        a, b = a + load(rows, at), b + load(rows, at + WIDTH)
    return a, b


@jit
def _sum4(tile, column, width, times, first, count):
    """The sum of 4 vectors of the rows ``times`` of the tile, from ``column`` on."""
    a = splat(tile.dtype.type(0))
    b, c, d = a, a, a
    for k in range(first, first + count):
        at = item(times, k) * width + column
        a = a + load(tile, at)
        b = b + load(tile, at + WIDTH)
        c = c + load(tile, at + 2 * WIDTH)
        d = d + load(tile, at + 3 * WIDTH)
    return a, b, c, d


@jit
def _sum1(tile, column, width, times, first, count):
    a = splat(tile.dtype.type(0))
    for k in range(first, first + count):
        a = a + load(tile, item(times, k) * width + column)
    return a


@jit
def _gate(a, b, scale, bias, column, H):
    """``(a, σ(b))`` from the sums over the rows of weights."""
    one = splat(bias.dtype.type(1))
    a = fma(a, scale, load(bias, column))
    b = fma(b, scale, load(bias, H + column))
    return a, one / (one + exp(splat(bias.dtype.type(0)) - b))


@jit
def _emit(x, y, at, a, b, scale, bias, column, H, after, masked, sample):
    a, gate = _gate(a, b, scale, bias, column, H)
    z = a * gate
    if masked:
        z = z * load(after, sample * H + column)
    store(y, at + column, load(x, at + column) + z)


@jit
def forward(first, last, x, before, graded, weight, panels, bias, y, keep, after, scale, masked, L, H) -> None:
    """``y (B, L, H)`` for tasks ``first`` to ``last``: number q is steps q % n ROWS ... of sample q // n.

    ``before``: u', or what else is ``graded``. ``weight``, ``panels``: as :func:`lay_out` leaves them; ``keep``,
    ``after`` ``(B, H)``: m and m', ``scale`` the value of m where it is not 0; empty and 1 if not ``masked``.
    """
    n, width, wide = (L + ROWS - 1) // ROWS, H + WIDTH, 2 * H + WIDTH  # an odd number of cache lines
    fired, counts = np.empty(ROWS * H, np.int16), np.empty(ROWS, np.int64)
    spikes, tile = aligned((ROWS + TILE) * width, x.dtype), aligned((ROWS + TILE) * wide, x.dtype)
    one, factor = splat(x.dtype.type(1)), splat(scale)
    for q in range(first, last):
        sample, t0 = q // n, q % n * ROWS
        rows = min(ROWS, L - t0)
        base = (sample * L + t0) * H
        if _many(before, base, rows, H, graded, keep, masked, sample, fired, counts):
            _dense(before, base, graded, keep, masked, sample, spikes, width, panels, tile, wide, rows, H)
            for r in range(rows):
                for column in range(0, H, WIDTH):
                    a, b = load(tile, r * wide + column), load(tile, r * wide + H + column)
                    _emit(x, y, base + r * H, a, b, one, bias, column, H, after, masked, sample)
            continue
        column = 0
        while column + 4 * WIDTH <= H:
            for r in range(rows):
                a0, a1, a2, a3, b0, b1, b2, b3 = _sum8(weight, 2 * column * H, fired, r * H, counts[r])
                at = base + r * H
                _emit(x, y, at, a0, b0, factor, bias, column, H, after, masked, sample)
                _emit(x, y, at, a1, b1, factor, bias, column + WIDTH, H, after, masked, sample)
                _emit(x, y, at, a2, b2, factor, bias, column + 2 * WIDTH, H, after, masked, sample)
                _emit(x, y, at, a3, b3, factor, bias, column + 3 * WIDTH, H, after, masked, sample)
            column += 4 * WIDTH
        while column < H:
            for r in range(rows):
                a, b = _sum2(weight, 2 * column * H, fired, r * H, counts[r])
                _emit(x, y, base + r * H, a, b, factor, bias, column, H, after, masked, sample)
            column += WIDTH


@jit
def _slopes(grad, at, a, b, scale, bias, column, H, after, masked, sample, tile, row):
    """Gradients at a and b into the tile."""
    one = splat(bias.dtype.type(1))
    a, gate = _gate(a, b, scale, bias, column, H)
    g = load(grad, at + column)
    if masked:
        g = g * load(after, sample * H + column)
    at_a = g * gate
    at_b = at_a * a * (one - gate)
    store(tile, row + column, at_a)
    store(tile, row + H + column, at_b)


@jit
def _add(array, at, value):
    store(array, at, load(array, at) + value)


@jit
def _event_slopes(
    grad, base, weight, factor, bias, fired, counts, times, often, tile, width, rows, H, after, masked, sample
):  # fmt: skip
    """Gradients at [a; b] into the tile; ``times (H, ROWS)`` and ``often`` receive at which steps a neuron fired."""
    for h in range(H):
        often[h] = 0
    for r in range(rows):
        for k in range(r * H, r * H + counts[r]):
            h = item(fired, k)
            count = item(often, h)
            times[h * ROWS + count] = r
            often[h] = count + 1
    column = 0
    while column + 4 * WIDTH <= H:
        for r in range(rows):
            a0, a1, a2, a3, b0, b1, b2, b3 = _sum8(weight, 2 * column * H, fired, r * H, counts[r])
            at, row = base + r * H, r * width
            c = column
            _slopes(grad, at, a0, b0, factor, bias, c, H, after, masked, sample, tile, row)
            c += WIDTH
            _slopes(grad, at, a1, b1, factor, bias, c, H, after, masked, sample, tile, row)
            c += WIDTH
            _slopes(grad, at, a2, b2, factor, bias, c, H, after, masked, sample, tile, row)
            c += WIDTH
            _slopes(grad, at, a3, b3, factor, bias, c, H, after, masked, sample, tile, row)
        column += 4 * WIDTH
    while column < H:
        for r in range(rows):
            a, b = _sum2(weight, 2 * column * H, fired, r * H, counts[r])
            at = base + r * H
            _slopes(grad, at, a, b, factor, bias, column, H, after, masked, sample, tile, r * width)
        column += WIDTH


@jit
def _event_weights(tile, width, times, often, mine, factor, H):
    """Add the sums of the tile over the steps at which each neuron fired to ``mine (H, 2H)``."""
    column = 0
    while column + 4 * WIDTH <= 2 * H:
        for h in range(H):
            if often[h]:
                a, b, c, d = _sum4(tile, column, width, times, h * ROWS, often[h])
                at = h * 2 * H + column
                _add(mine, at, a * factor)
                _add(mine, at + WIDTH, b * factor)
                _add(mine, at + 2 * WIDTH, c * factor)
                _add(mine, at + 3 * WIDTH, d * factor)
        column += 4 * WIDTH
    while column < 2 * H:
        for h in range(H):
            if often[h]:
                _add(mine, h * 2 * H + column, _sum1(tile, column, width, times, h * ROWS, often[h]) * factor)
        column += WIDTH


@jit
def backward(
    first, last, grad, before, graded, weight, panels, columns, bias, out, d_weight, d_bias, slots, keep, after, scale,
    masked, B, L, H,
) -> None:  # fmt: skip
    """From ``grad (B, L, H)`` at y to that at the spikes, ``out (B, L, H)``.

    Slot j of ``slots`` takes an equal share of the tasks of :func:`forward` and adds the gradients of its own
    ``d_weight (slots, H, 2H)``, transposed, whatever stands there, and ``d_bias (slots, 2H)``.
    """
    n, width = (L + ROWS - 1) // ROWS, 2 * H + WIDTH  # an odd number of cache lines
    fired, counts = np.empty(ROWS * H, np.int16), np.empty(ROWS, np.int64)
    times, often = np.empty(H * ROWS, np.int16), np.empty(H, np.int64)
    tile, spikes = aligned((ROWS + TILE) * width, grad.dtype), aligned((ROWS + TILE) * (H + WIDTH), grad.dtype)
    tile[:] = 0
    one, factor = splat(grad.dtype.type(1)), splat(scale)
    for slot in range(first, last):
        mine, my_bias = d_weight[slot * 2 * H * H :], d_bias[slot * 2 * H :]
        for i in range(0, 2 * H * H, WIDTH):
            store(mine, i, one - one)
        for q in range(slot * B * n // slots, (slot + 1) * B * n // slots):
            sample, t0 = q // n, q % n * ROWS
            rows = min(ROWS, L - t0)
            base = (sample * L + t0) * H
            dense = _many(before, base, rows, H, graded, keep, masked, sample, fired, counts)
            if dense:
                _dense(before, base, graded, keep, masked, sample, spikes, H + WIDTH, panels, tile, width, rows, H)
                for r in range(rows):
                    row = r * width
                    for column in range(0, H, WIDTH):
                        a, b = load(tile, row + column), load(tile, row + H + column)
                        _slopes(grad, base + r * H, a, b, one, bias, column, H, after, masked, sample, tile, row)
            else:
                _event_slopes(
                    grad, base, weight, factor, bias, fired, counts, times, often, tile, width, rows, H, after, masked,
                    sample,
                )  # fmt: skip
            for column in range(0, 2 * H, WIDTH):
                slope = load(my_bias, column)
                for r in range(rows):
                    slope = slope + load(tile, r * width + column)
                store(my_bias, column, slope)
            if dense:
                outer(spikes, H + WIDTH, tile, width, rows, H, mine)
            else:
                _event_weights(tile, width, times, often, mine, factor, H)
            for pair in range(0, H, 2 * WIDTH):
                column = min(pair, H - 2 * WIDTH)  # of an odd number of panels the last but one is done twice
                for r in range(0, rows, TILE):
                    product(
                        tile, width, columns, column * 2 * H, 2 * H, r * width, out, base + r * H + column, H, rows - r,
                        keep, masked, sample * H + column,
                    )  # fmt: skip
