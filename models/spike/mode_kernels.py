"""The sum over modes of :mod:`models.spike.kernel` for WIDTH neighbouring channels at once, and its backward pass.

Powers e^{dtA l} are products of the exact ones e^{dtA 2^m} at the beginning of every SEGMENT steps, and of e^{dtA} from
there on. A block of channels is laid out as :mod:`models.spike.conv_kernels` has its signals, and the numbers of mode n
as rows of WIDTH channels: real parts, then imaginary parts.
"""

from __future__ import annotations

import numpy as np

from sdn.kernels.simd import WIDTH, fma, fnma, full, load, splat, store

from .compiled import jit

SEGMENT = 16
LEVEL = 4
STEP = 2 * WIDTH


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
    zero = splat(grads.dtype.type(0))
    blocks = out.size // (directions * 2 * modes * STEP)
    for block in range(first, last):
        base = block * n * STEP
        for mode in range(modes):
            at = (block * modes + mode) * levels * STEP
            zr, zi = load(table, at), load(table, at + WIDTH)
            for d in range(directions):
                ar, ai, br, bi = zero, zero, zero, zero
                length = L if d == 0 else L - 1
                for segment in range((length + SEGMENT - 1) // SEGMENT):
                    begin = segment * SEGMENT
                    wr, wi = _power(table, at, segment, full(zero, 1.0), zero)
                    sr, si, tr, ti = zero, zero, zero, zero
                    for t in range(begin, min(length, begin + SEGMENT)):
                        g = load(grads, base + (t if d == 0 else n - 1 - t) * STEP)
                        sr, si = fma(g, wr, sr), fma(g, wi, si)
                        g = g * full(zero, float(t - begin))
                        tr, ti = fma(g, wr, tr), fma(g, wi, ti)
                        wr, wi = _times(wr, wi, zr, zi)
                    ar, ai = ar + sr, ai + si
                    past = full(zero, float(begin))
                    br, bi = br + fma(past, sr, tr), bi + fma(past, si, ti)
                here = ((2 * d * blocks + block) * modes + mode) * STEP
                store(out, here, ar)
                store(out, here + WIDTH, ai)
                here += blocks * modes * STEP
                store(out, here, br)
                store(out, here + WIDTH, bi)


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
