"""Norms over signals ``(R, H)``, channels last, R steps of all samples: one pass forwards, one or two backwards.

Layer norm: every step over its channels. Batch norm: every channel over the steps that count. Both write
``y = (x - mean) scale + bias`` with a ``mean`` and ``scale`` per step or per channel.
"""

from __future__ import annotations

import numpy as np

from sdn.kernels.simd import WIDTH, fma, fnma, load, splat, store, total

from .compiled import jit


@jit
def layer_forward(first, last, x, weight, bias, eps, y, stats, H) -> None:
    """Layer norm of rows ``first`` to ``last``; ``stats (R, 2)`` receives mean and 1 / std."""
    one = x.dtype.type(1)
    share = one / x.dtype.type(H)
    for r in range(first, last):
        base = r * H
        s = load(x, base)
        for c in range(WIDTH, H, WIDTH):
            s = s + load(x, base + c)
        mean = total(s) * share
        middle = splat(mean)
        d = load(x, base) - middle
        s = d * d
        for c in range(WIDTH, H, WIDTH):
            d = load(x, base + c) - middle
            s = fma(d, d, s)
        inverse = one / np.sqrt(total(s) * share + eps)
        stats[2 * r], stats[2 * r + 1] = mean, inverse
        scale = splat(inverse)
        for c in range(0, H, WIDTH):
            store(y, base + c, fma((load(x, base + c) - middle) * scale, load(weight, c), load(bias, c)))


@jit
def layer_backward(first, last, grad, x, weight, stats, out, base, added, d_weight, d_bias, slots, R, H) -> None:
    """From ``grad`` at y to that at x, ``out``, plus ``base`` if ``added``; ``out`` may be either.

    Slot j of ``slots`` takes an equal share of the rows and adds to its ``d_weight``, ``d_bias`` ``(slots, H)``.
    """
    share = x.dtype.type(1) / x.dtype.type(H)
    for slot in range(first, last):
        mine, my_bias = d_weight[slot * H :], d_bias[slot * H :]
        for r in range(slot * R // slots, (slot + 1) * R // slots):
            at, mean, inverse = r * H, splat(stats[2 * r]), splat(stats[2 * r + 1])
            s = splat(x.dtype.type(0))
            p = s
            for c in range(0, H, WIDTH):
                n, g = (load(x, at + c) - mean) * inverse, load(grad, at + c)
                store(mine, c, fma(g, n, load(mine, c)))
                store(my_bias, c, load(my_bias, c) + g)
                w = g * load(weight, c)
                s, p = s + w, fma(w, n, p)
            middle, slope = splat(total(s) * share), splat(total(p) * share)
            for c in range(0, H, WIDTH):
                n = (load(x, at + c) - mean) * inverse
                v = fnma(n, slope, fma(load(grad, at + c), load(weight, c), splat(x.dtype.type(0)) - middle)) * inverse
                if added:
                    v = v + load(base, at + c)
                store(out, at + c, v)


@jit
def batch_moments(first, last, x, lengths, moments, counts, slots, L, H) -> None:
    """Mean and sum of squares about it of every channel, over the steps that count, slot by slot.

    ``moments (slots, 2, H)`` in float64, ``counts (slots,)``. Blocks of steps are merged as in Chan, Golub and LeVeque
    (1983).
    """
    zero, block = splat(x.dtype.type(0)), 64
    B, found = lengths.size, np.empty(2 * WIDTH, x.dtype)
    for slot in range(first, last):
        at = slot * 2 * H
        for c in range(0, H, WIDTH):
            count, r, end = 0, slot * B * L // slots, (slot + 1) * B * L // slots
            while r < end:
                sample, t = r // L, r % L
                steps = min(end - r, L - t, block)
                rows = min(steps, lengths[sample] - t)
                if rows > 0:
                    s = zero
                    for i in range(rows):
                        s = s + load(x, (r + i) * H + c)
                    mean = s * splat(x.dtype.type(1) / x.dtype.type(rows))
                    s = zero
                    for i in range(rows):
                        d = load(x, (r + i) * H + c) - mean
                        s = fma(d, d, s)
                    store(found, 0, mean)
                    store(found, WIDTH, s)
                    for i in range(WIDTH):
                        d = found[i] - moments[at + c + i]
                        moments[at + c + i] += d * rows / (count + rows)
                        moments[at + H + c + i] += found[WIDTH + i] + d * d * count * rows / (count + rows)
                    count += rows
                r += steps
        counts[slot] = count


@jit
def affine(first, last, x, mean, scale, bias, y, H) -> None:
    """``y = (x - mean) scale + bias`` with a number per channel, rows ``first`` to ``last``."""
    for r in range(first, last):
        for c in range(0, H, WIDTH):
            at = r * H + c
            store(y, at, fma(load(x, at) - load(mean, c), load(scale, c), load(bias, c)))


@jit
def batch_sums(first, last, grad, x, mean, sums, slots, R, H) -> None:
    """Sums over the steps of g and g (x - mean), slot by slot: ``sums (slots, 2, H)``."""
    for slot in range(first, last):
        mine = sums[slot * 2 * H :]
        for r in range(slot * R // slots, (slot + 1) * R // slots):
            for c in range(0, H, WIDTH):
                g = load(grad, r * H + c)
                store(mine, c, load(mine, c) + g)
                store(mine, H + c, fma(g, load(x, r * H + c) - load(mean, c), load(mine, H + c)))


@jit
def batch_backward(first, last, grad, x, lengths, mean, scale, shift, slope, out, base, added, L, H) -> None:
    """``g scale``, and where a step counts ``- shift - (x - mean) slope``, plus ``base`` if ``added``."""
    for r in range(first, last):
        counts = r % L < lengths[r // L]
        for c in range(0, H, WIDTH):
            at = r * H + c
            v = load(grad, at) * load(scale, c)
            if counts:
                v = fnma(load(x, at) - load(mean, c), load(slope, c), v - load(shift, c))
            if added:
                v = v + load(base, at)
            store(out, at, v)
