"""Convolution and neuron of a layer in one go, for WIDTH neighbouring channels of two samples at a time.

Signals are ``(B, L, H)``, channels last, so that a vector holds the same step of WIDTH channels. Two samples are the
real and imaginary part of one complex signal: both have the channel's kernel, so that its transform multiplies their
packed one, and nothing needs to be unpacked. A channel block of two samples fits the cache of a core, and a thread
takes it through transform, product, transform back and neuron; backwards likewise. A sample that is not finite goes
alone.

The transforms are mixed radix, in place, without reordering: decimation in frequency one way (natural order to digits
reversed), its mirror image back, no scale. The first factor is 4, of which two inputs are the zeros that a linear
convolution is padded with, and two outputs are never read.

Buffers are flat: point p has its real parts from 2 p WIDTH on and its imaginary parts from (2 p + 1) WIDTH on.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from sdn.kernels.simd import WIDTH, aligned, broadcast, fma, fnma, full, load, splat, store, total

from .compiled import jit
from .neuron_kernels import adjoint, respond

STEP = 2 * WIDTH


# ----------------------------------------------------------------------------------------------------------- transforms


def size(length: int) -> int:
    """The smallest 2^a 3^b 5^c, divisible by 4, that holds a linear convolution of two signals of ``length``."""
    least, best = max(2 * length - 1, 4), 1 << 62
    five = 1
    while five < 2 * least:
        odd = five
        while odd < 2 * least:
            two = max(2, math.ceil(math.log2(least / odd))) if odd < least else 2
            if odd << two >= least:
                best = min(best, odd << two)
            odd *= 3
        five *= 5
    return best


@functools.cache
def plan(n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(factors, where each one's twiddles begin, twiddles)`` of transforms of ``n`` points."""
    factors, rest = [4], n // 4
    for factor in (5, 3, 4, 2):
        while rest % factor == 0:
            factors.append(factor)
            rest //= factor
    tables, begin, block = [], [0], n
    for factor in factors:
        j = np.arange(block // factor)[:, None] * np.arange(1, factor)
        angle = -2 * np.pi * j / block
        tables.append(np.stack([np.cos(angle), np.sin(angle)], -1).ravel())
        begin.append(begin[-1] + tables[-1].size)
        block //= factor
    return np.array(factors), np.array(begin), np.concatenate(tables).astype(dtype)


@jit
def _turn(buf, p, re, im, tw, i):
    """Store (re, im) times the twiddle at ``i`` as point ``p``."""
    c, s = broadcast(tw, i), broadcast(tw, i + 1)
    store(buf, p * STEP, fnma(im, s, re * c))
    store(buf, p * STEP + WIDTH, fma(im, c, re * s))


@jit
def _turned_back(buf, p, tw, i):
    """Point ``p`` times the conjugate of the twiddle at ``i``."""
    re, im, c, s = load(buf, p * STEP), load(buf, p * STEP + WIDTH), broadcast(tw, i), broadcast(tw, i + 1)
    return fma(im, s, re * c), fnma(re, s, im * c)


@jit
def _point(buf, p):
    return load(buf, p * STEP), load(buf, p * STEP + WIDTH)


@jit
def _put(buf, p, re, im):
    store(buf, p * STEP, re)
    store(buf, p * STEP + WIDTH, im)


@jit
def _dft3(ar, ai, br, bi, cr, ci, sign):
    half, root = full(ar, 0.5), full(ar, sign * 0.8660254037844386)
    sr, si, dr, di = br + cr, bi + ci, br - cr, bi - ci
    mr, mi = fnma(sr, half, ar), fnma(si, half, ai)
    return ar + sr, ai + si, fma(di, root, mr), fnma(dr, root, mi), fnma(di, root, mr), fma(dr, root, mi)


@jit
def _dft5(ar, ai, br, bi, cr, ci, dr, di, er, ei, sign):
    c1, c2 = full(ar, 0.30901699437494745), full(ar, -0.8090169943749475)
    s1, s2 = full(ar, sign * 0.9510565162951535), full(ar, sign * 0.5877852522924731)
    pr, pi, qr, qi = br + er, bi + ei, cr + dr, ci + di
    mr, mi, nr, ni = br - er, bi - ei, cr - dr, ci - di
    xr, xi = fma(qr, c2, fma(pr, c1, ar)), fma(qi, c2, fma(pi, c1, ai))
    yr, yi = fma(qr, c1, fma(pr, c2, ar)), fma(qi, c1, fma(pi, c2, ai))
    ur, ui = fma(nr, s2, mr * s1), fma(ni, s2, mi * s1)
    vr, vi = fnma(nr, s1, mr * s2), fnma(ni, s1, mi * s2)
    return (
        (ar + pr) + qr,
        (ai + pi) + qi,
        xr + ui,
        xi - ur,
        yr + vi,
        yi - vr,
        yr - vi,
        yi + vr,
        xr - ui,
        xi + ur,
    )


@jit
def _stage(buf, start, m, factor, tw, at):
    """Forwards: ``factor`` points m apart to their transform, turned by the twiddles."""
    for j in range(m):
        p, i = start + j, at + 2 * (factor - 1) * j
        ar, ai = _point(buf, p)
        br, bi = _point(buf, p + m)
        if factor == 2:
            _put(buf, p, ar + br, ai + bi)
            _turn(buf, p + m, ar - br, ai - bi, tw, i)
        elif factor == 3:
            cr, ci = _point(buf, p + 2 * m)
            ar, ai, br, bi, cr, ci = _dft3(ar, ai, br, bi, cr, ci, 1.0)
            _put(buf, p, ar, ai)
            _turn(buf, p + m, br, bi, tw, i)
            _turn(buf, p + 2 * m, cr, ci, tw, i + 2)
        elif factor == 4:
            cr, ci = _point(buf, p + 2 * m)
            dr, di = _point(buf, p + 3 * m)
            er, ei, fr, fi, gr, gi, hr, hi = ar + cr, ai + ci, ar - cr, ai - ci, br + dr, bi + di, br - dr, bi - di
            _put(buf, p, er + gr, ei + gi)
            _turn(buf, p + m, fr + hi, fi - hr, tw, i)
            _turn(buf, p + 2 * m, er - gr, ei - gi, tw, i + 2)
            _turn(buf, p + 3 * m, fr - hi, fi + hr, tw, i + 4)
        else:
            cr, ci = _point(buf, p + 2 * m)
            dr, di = _point(buf, p + 3 * m)
            er, ei = _point(buf, p + 4 * m)
            ar, ai, br, bi, cr, ci, dr, di, er, ei = _dft5(ar, ai, br, bi, cr, ci, dr, di, er, ei, 1.0)
            _put(buf, p, ar, ai)
            _turn(buf, p + m, br, bi, tw, i)
            _turn(buf, p + 2 * m, cr, ci, tw, i + 2)
            _turn(buf, p + 3 * m, dr, di, tw, i + 4)
            _turn(buf, p + 4 * m, er, ei, tw, i + 6)


@jit
def _stage_back(buf, start, m, factor, tw, at):
    """The mirror image of :func:`_stage`."""
    for j in range(m):
        p, i = start + j, at + 2 * (factor - 1) * j
        ar, ai = _point(buf, p)
        br, bi = _turned_back(buf, p + m, tw, i)
        if factor == 2:
            _put(buf, p, ar + br, ai + bi)
            _put(buf, p + m, ar - br, ai - bi)
        elif factor == 3:
            cr, ci = _turned_back(buf, p + 2 * m, tw, i + 2)
            ar, ai, br, bi, cr, ci = _dft3(ar, ai, br, bi, cr, ci, -1.0)
            _put(buf, p, ar, ai)
            _put(buf, p + m, br, bi)
            _put(buf, p + 2 * m, cr, ci)
        elif factor == 4:
            cr, ci = _turned_back(buf, p + 2 * m, tw, i + 2)
            dr, di = _turned_back(buf, p + 3 * m, tw, i + 4)
            er, ei, fr, fi, gr, gi, hr, hi = ar + cr, ai + ci, ar - cr, ai - ci, br + dr, bi + di, br - dr, bi - di
            _put(buf, p, er + gr, ei + gi)
            _put(buf, p + m, fr - hi, fi + hr)
            _put(buf, p + 2 * m, er - gr, ei - gi)
            _put(buf, p + 3 * m, fr + hi, fi - hr)
        else:
            cr, ci = _turned_back(buf, p + 2 * m, tw, i + 2)
            dr, di = _turned_back(buf, p + 3 * m, tw, i + 4)
            er, ei = _turned_back(buf, p + 4 * m, tw, i + 6)
            ar, ai, br, bi, cr, ci, dr, di, er, ei = _dft5(ar, ai, br, bi, cr, ci, dr, di, er, ei, -1.0)
            _put(buf, p, ar, ai)
            _put(buf, p + m, br, bi)
            _put(buf, p + 2 * m, cr, ci)
            _put(buf, p + 3 * m, dr, di)
            _put(buf, p + 4 * m, er, ei)


@jit
def _first_half(buf, m, tw):
    """:func:`_stage` of the first factor, 4, where the second half of the points is zero, whatever stands there."""
    for j in range(m):
        i = 6 * j
        ar, ai = _point(buf, j)
        br, bi = _point(buf, j + m)
        _put(buf, j, ar + br, ai + bi)
        _turn(buf, j + m, ar + bi, ai - br, tw, i)
        _turn(buf, j + 2 * m, ar - br, ai - bi, tw, i + 2)
        _turn(buf, j + 3 * m, ar - bi, ai + br, tw, i + 4)


@jit
def _last_half(buf, m, tw):
    """The mirror image of :func:`_first_half`: only the first half of the points is computed."""
    for j in range(m):
        i = 6 * j
        ar, ai = _point(buf, j)
        br, bi = _turned_back(buf, j + m, tw, i)
        cr, ci = _turned_back(buf, j + 2 * m, tw, i + 2)
        dr, di = _turned_back(buf, j + 3 * m, tw, i + 4)
        _put(buf, j, (ar + cr) + (br + dr), (ai + ci) + (bi + di))
        _put(buf, j + m, (ar - cr) - (bi - di), (ai - ci) + (br - dr))


@jit
def transform(buf, n, factors, begin, tw, whole) -> None:
    """Forwards; not ``whole``: the second half of the points counts as zero. Depth first, to stay in the cache."""
    m, depth = n // 4, factors.size
    if whole:
        _stage(buf, 0, m, 4, tw, 0)
    else:
        _first_half(buf, m, tw)
    if depth == 1:
        return
    inner = m // factors[1]
    for block in range(0, n, m):
        _stage(buf, block, inner, factors[1], tw, begin[1])
        for part in range(block, block + m, inner):
            step = inner
            for k in range(2, depth):
                small = step // factors[k]
                for start in range(part, part + inner, step):
                    _stage(buf, start, small, factors[k], tw, begin[k])
                step = small


@jit
def transform_back(buf, n, factors, begin, tw, whole) -> None:
    """Back, times n; not ``whole``: the second half of the points is not computed."""
    m, depth = n // 4, factors.size
    if depth > 1:
        inner = m // factors[1]
        for block in range(0, n, m):
            for part in range(block, block + m, inner):
                small = 1
                for k in range(depth - 1, 1, -1):
                    step = small * factors[k]
                    for start in range(part, part + inner, step):
                        _stage_back(buf, start, small, factors[k], tw, begin[k])
                    small = step
            _stage_back(buf, block, inner, factors[1], tw, begin[1])
    if whole:
        _stage_back(buf, 0, m, 4, tw, 0)
    else:
        _last_half(buf, m, tw)


@jit
def spectra(first, last, kernels, n, factors, begin, tw) -> None:
    """Circular kernels of channel blocks ``first`` to ``last`` become their spectra, divided by n."""
    scale = splat(kernels.dtype.type(1) / kernels.dtype.type(n))
    for block in range(first, last):
        buf = kernels[block * n * STEP : (block + 1) * n * STEP]
        transform(buf, n, factors, begin, tw, True)
        for i in range(0, n * STEP, WIDTH):
            store(buf, i, load(buf, i) * scale)


@jit
def kernels(first, last, sums, parts, blocks, n, factors, begin, tw) -> None:
    """Add up the ``parts`` of spectra into the first, and transform back, divided by n."""
    scale = splat(sums.dtype.type(1) / sums.dtype.type(n))
    for block in range(first, last):
        buf = sums[block * n * STEP : (block + 1) * n * STEP]
        for i in range(0, n * STEP, WIDTH):
            value = load(buf, i)
            for part in range(1, parts):
                value = value + load(sums, (part * blocks + block) * n * STEP + i)
            store(buf, i, value * scale)
        transform_back(buf, n, factors, begin, tw, True)


# ---------------------------------------------------------------------------------------------- convolution and neuron


@jit
def _fill(buf, half, x, row, steps, H, until):
    """Steps of one sample from ``x[row]`` on into the real (half 0) or imaginary parts, zero up to point ``until``.

    Returns whether all of them are finite.
    """
    zero = splat(x.dtype.type(0))
    seen, at = zero, half * WIDTH
    for t in range(steps):
        v = load(x, row + t * H)
        seen = fma(v, zero, seen)
        store(buf, t * STEP + at, v)
    for t in range(steps, until):
        store(buf, t * STEP + at, zero)
    return total(seen) == 0


@jit
def _clear(buf, half, until):
    zero = splat(buf.dtype.type(0))
    for t in range(until):
        store(buf, t * STEP + half * WIDTH, zero)


@jit
def _times(buf, kernel, base, n):
    for p in range(n):
        re, im = _point(buf, p)
        kr, ki = load(kernel, base + p * STEP), load(kernel, base + p * STEP + WIDTH)
        _put(buf, p, fnma(im, ki, re * kr), fma(im, kr, re * ki))


@jit
def forward(
    first, last, x, lengths, spectrum, out, kind, tau, u_r, sdn, sizes, L, H, n, factors, begin, tw
) -> None:  # fmt: skip
    """Convolution and neuron, ``out (B, L, H)`` of ``x (B, L, H)``, of which sample b has ``lengths[b]`` steps.

    Task q is the pair of samples q % pairs of the channel block q // pairs. ``kind``, ``tau``, ``u_r``, ``sdn`` and its
    ``sizes`` d, k, layers and :func:`models.spike.neuron_kernels.room`: the neuron.
    """
    B = lengths.size
    pairs, buf, work = (B + 1) // 2, aligned(n * STEP, x.dtype), aligned(sizes[3], x.dtype)
    for q in range(first, last):
        block, pair = q // pairs, q % pairs
        channel, kernel = block * WIDTH, block * n * STEP
        a, b = 2 * pair, min(2 * pair + 1, B - 1)
        fine = _fill(buf, 0, x, a * L * H + channel, lengths[a], H, n // 2)
        if b > a:
            fine = _fill(buf, 1, x, b * L * H + channel, lengths[b], H, n // 2) and fine
        else:
            _clear(buf, 1, n // 2)
        for alone in range(1 if fine or a == b else 2):
            if not fine:
                _fill(buf, 0, x, (a + alone) * L * H + channel, lengths[a + alone], H, n // 2)
                _clear(buf, 1, n // 2)
            transform(buf, n, factors, begin, tw, False)
            _times(buf, spectrum, kernel, n)
            transform_back(buf, n, factors, begin, tw, False)
            row = (a + alone) * L * H + channel
            respond(buf, 0, out, row, kind, tau, u_r, sdn, sizes, channel, work, L, H)
            if fine and b > a:
                respond(buf, 1, out, b * L * H + channel, kind, tau, u_r, sdn, sizes, channel, work, L, H)


@jit
def _gather(grads, signal, kernel, base, sums, at, n):
    """sums += conj(signal) grads, then grads *= conj(kernel)."""
    for p in range(n):
        gr, gi = _point(grads, p)
        xr, xi = _point(signal, p)
        kr, ki = load(kernel, base + p * STEP), load(kernel, base + p * STEP + WIDTH)
        here = at + p * STEP
        store(sums, here, fma(xi, gi, fma(xr, gr, load(sums, here))))
        store(sums, here + WIDTH, fnma(xi, gr, fma(xr, gi, load(sums, here + WIDTH))))
        _put(grads, p, fma(gi, ki, gr * kr), fnma(gr, ki, gi * kr))


@jit
def _spill(buf, half, out, base, added, row, steps, L, H):
    """Gradients of one sample to ``out[row]`` on, zero after ``steps``, plus ``base`` if ``added``."""
    zero = splat(buf.dtype.type(0))
    for t in range(L):
        v = load(buf, t * STEP + half * WIDTH) if t < steps else zero
        if added:
            v = v + load(base, row + t * H)
        store(out, row + t * H, v)


@jit
def backward(
    first, last, grad, x, lengths, before, out, base, added, spectrum, sums, parts, blocks, neuron, tau, u_r, learnt,
    L, H, n, factors, begin, tw,
) -> None:  # fmt: skip
    """From the gradient at the spikes, ``grad (B, L, H)``, to that at ``x``: ``out (B, L, H)``, plus ``base`` if
    ``added``; ``sums (parts, blocks, n)`` receives the spectra of the kernels' gradients.

    Task q is the share q % parts of the pairs of samples, of the channel block q // parts. ``out`` may be ``grad``.
    ``neuron``, ``tau``, ``u_r``: see :func:`models.spike.neuron_kernels.adjoint`, whose sums go to ``learnt``
    ``(2, parts, H)`` unless it is empty.
    """
    B = lengths.size
    pairs, buf, signal = (B + 1) // 2, aligned(n * STEP, x.dtype), aligned(n * STEP, x.dtype)
    for q in range(first, last):
        block, part = q // parts, q % parts
        channel, kernel, at = block * WIDTH, block * n * STEP, (part * blocks + block) * n * STEP
        for i in range(n * STEP):
            sums[at + i] = 0
        for pair in range(part * pairs // parts, (part + 1) * pairs // parts):
            a, b = 2 * pair, min(2 * pair + 1, B - 1)
            row = a * L * H + channel
            other = b * L * H + channel
            tally, want = part * H + channel, learnt.size > 0
            fine = adjoint(
                buf, 0, grad, before, row, channel, neuron, tau, u_r, learnt, tally, want, L, H, n // 2
            )  # fmt: skip
            fine = _fill(signal, 0, x, row, lengths[a], H, n // 2) and fine
            if b > a:
                fine = adjoint(
                    buf, 1, grad, before, other, channel, neuron, tau, u_r, learnt, tally, want, L, H, n // 2
                ) and fine  # fmt: skip
                fine = _fill(signal, 1, x, other, lengths[b], H, n // 2) and fine
            else:
                _clear(buf, 1, n // 2)
                _clear(signal, 1, n // 2)
            for alone in range(1 if fine or a == b else 2):
                here = row if alone == 0 else other
                if not fine:
                    adjoint(buf, 0, grad, before, here, channel, neuron, tau, u_r, learnt, 0, False, L, H, n // 2)
                    _fill(signal, 0, x, here, lengths[a + alone], H, n // 2)
                    _clear(buf, 1, n // 2)
                    _clear(signal, 1, n // 2)
                transform(buf, n, factors, begin, tw, False)
                transform(signal, n, factors, begin, tw, False)
                _gather(buf, signal, spectrum, kernel, sums, at, n)
                transform_back(buf, n, factors, begin, tw, False)
                _spill(buf, 0, out, base, added, here, lengths[a + alone], L, H)
                if fine and b > a:
                    _spill(buf, 1, out, base, added, other, lengths[b], L, H)
