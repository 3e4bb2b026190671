"""The sum over modes of :mod:`models.spike.kernel` for WIDTH neighbouring channels at once, and its backward pass.

Powers e^{dtA l} are products of e^{dtA 2^m}, squares in float64, at the beginning of every SEGMENT steps, and of
e^{dtA} from there on. A block of channels is laid out as :mod:`models.spike.conv_kernels` has its signals, and the
numbers of mode n as rows of WIDTH channels: real parts, then imaginary parts.
"""

from __future__ import annotations

import numpy as np

from sdn.kernels.simd import WIDTH, fma, fnma, full, load, splat, store

from .compiled import jit

SEGMENT = 16
LEVEL = 4
STEP = 2 * WIDTH


def base(dtA: np.ndarray) -> np.ndarray:
    """e^{dtA} in float64, ``(H, N)`` complex to ``(H, N, 2)`` real, flat; by real functions, which are vectorised."""
    size, phase = np.exp(dtA.real.astype(np.float64)), dtA.imag.astype(np.float64)
    return np.stack((size * np.cos(phase), size * np.sin(phase)), -1).reshape(-1)


@jit
def powers(first, last, base, table, modes, levels) -> None:
    """``table (blocks, modes, levels, 2, WIDTH)``: e^{dtA 2^m} of channel blocks ``first`` to ``last``."""
    kind = table.dtype.type
    for block in range(first, last):
        for mode in range(modes):
            at = (block * modes + mode) * levels * STEP
            for lane in range(WIDTH):
                i = 2 * ((block * WIDTH + lane) * modes + mode)
                re, im = base[i], base[i + 1]
                for level in range(levels):
                    table[at + level * STEP + lane] = kind(re)
                    table[at + level * STEP + WIDTH + lane] = kind(im)
                    re, im = re * re - im * im, 2 * re * im


@jit
def _times(ar, ai, br, bi):
    return fnma(ai, bi, ar * br), fma(ai, br, ar * bi)


@jit
def _power(table, at, segment, ar, ai):
    """(ar, ai) times e^{dtA SEGMENT segment}, from the ``table`` of one mode."""
    level = LEVEL
    while segment:
        if segment & 1:
            place = at + level * STEP
            ar, ai = _times(ar, ai, load(table, place), load(table, place + WIDTH))
        segment >>= 1
        level += 1
    return ar, ai


@jit
def kernel(first, last, table, coef, skip, out, directions, modes, levels, L, n) -> None:
    """Circular kernels of n points of channel blocks ``first`` to ``last``; see :func:`models.spike.fftconv.circular`.

    ``table (blocks, modes, levels, 2, WIDTH)``: e^{dtA 2^m}; ``coef (directions, blocks, modes, 2, WIDTH)``: 2 C';
    ``skip (H,)``: D; ``out (blocks, n, 2, WIDTH)``.
    """
    zero = splat(out.dtype.type(0))
    blocks = skip.size // WIDTH
    for block in range(first, last):
        base = block * n * STEP
        for p in range(2 * n):
            store(out, base + p * WIDTH, zero)
        for segment in range((L + SEGMENT - 1) // SEGMENT):
            begin = segment * SEGMENT
            end = min(L, begin + SEGMENT)
            for mode in range(modes):
                at = (block * modes + mode) * levels * STEP
                zr, zi = load(table, at), load(table, at + WIDTH)
                for d in range(directions):
                    c = ((d * blocks + block) * modes + mode) * STEP
                    wr, wi = _power(table, at, segment, load(coef, c), load(coef, c + WIDTH))
                    stop = end if d == 0 else min(end, L - 1)
                    for t in range(begin, stop):
                        here = base + (t if d == 0 else n - 1 - t) * STEP
                        store(out, here, load(out, here) + wr)
                        wr, wi = _times(wr, wi, zr, zi)
        store(out, base, load(out, base) + load(skip, block * WIDTH))


@jit
def moments(first, last, grads, table, out, directions, modes, levels, L, n) -> None:
    """``Σ_l G_l e^{dtA l}`` and ``Σ_l l G_l e^{dtA l}`` from the gradients at circular kernels, as :func:`kernel`'s.

    ``out (directions, 2, blocks, modes, 2, WIDTH)``.
    """
    blocks = out.size // (directions * 2 * modes * STEP)
    for block in range(first, last):
        for mode in range(0, modes, 2):
            other = min(mode + 1, modes - 1)  # of an odd number the last is done twice
            for d in range(directions):
                length, step = (L, 1) if d == 0 else (L - 1, -1)
                start = block * n + (0 if d == 0 else n - 1)
                a, b = (block * modes + mode) * levels * STEP, (block * modes + other) * levels * STEP
                found = _two_moments(grads, start, step, length, table, a, b)
                here = (2 * d * blocks + block) * modes * STEP
                _keep(out, here + mode * STEP, blocks * modes * STEP, found[:4])
                _keep(out, here + other * STEP, blocks * modes * STEP, found[4:])


@jit
def _keep(out, here, gap, four):
    store(out, here, four[0])
    store(out, here + WIDTH, four[1])
    store(out, here + gap, four[2])
    store(out, here + gap + WIDTH, four[3])


@jit
def _two_moments(grads, start, step, length, table, a, b):
    """Both sums of two modes, whose tables begin at ``a`` and ``b``, taking turns as in :func:`kernel`."""
    zero = splat(grads.dtype.type(0))
    one = full(zero, 1.0)
    zr, zi, yr, yi = load(table, a), load(table, a + WIDTH), load(table, b), load(table, b + WIDTH)
    ar, ai, br, bi, cr, ci, dr, di = zero, zero, zero, zero, zero, zero, zero, zero
    for segment in range((length + SEGMENT - 1) // SEGMENT):
        begin = segment * SEGMENT
        wr, wi = _power(table, a, segment, one, zero)
        vr, vi = _power(table, b, segment, one, zero)
        pr, pi, qr, qi, rr, ri, sr, si = zero, zero, zero, zero, zero, zero, zero, zero
        past = zero
        for t in range(begin, min(length, begin + SEGMENT)):
            g = load(grads, (start + step * t) * STEP)
            pr, pi, rr, ri = fma(g, wr, pr), fma(g, wi, pi), fma(g, vr, rr), fma(g, vi, ri)
            g = g * past
            qr, qi, sr, si = fma(g, wr, qr), fma(g, wi, qi), fma(g, vr, sr), fma(g, vi, si)
            wr, wi = _times(wr, wi, zr, zi)
            vr, vi = _times(vr, vi, yr, yi)
            past = past + one
        past = full(zero, float(begin))
        ar, ai, cr, ci = ar + pr, ai + pi, cr + rr, ci + ri
        br, bi = br + fma(past, pr, qr), bi + fma(past, pi, qi)
        dr, di = dr + fma(past, rr, sr), di + fma(past, ri, si)
    return ar, ai, br, bi, cr, ci, dr, di


def lanes(z: np.ndarray) -> np.ndarray:
    """Complex ``(..., H, N)`` to ``(..., blocks, N, 2, WIDTH)`` real, flat."""
    *front, H, N = z.shape
    parts = np.stack([z.real, z.imag], -1).reshape(*front, H // WIDTH, WIDTH, N, 2)
    return np.ascontiguousarray(np.moveaxis(parts, -3, -1)).reshape(-1)


def channels(flat: np.ndarray, *shape: int) -> np.ndarray:
    """The way back: to complex ``shape``."""
    *front, H, N = shape
    parts = np.moveaxis(flat.reshape(*front, H // WIDTH, N, 2, WIDTH), -1, -3).reshape(*front, H, N, 2)
    return parts[..., 0] + 1j * parts[..., 1]
