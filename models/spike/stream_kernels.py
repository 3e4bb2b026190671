"""Compiled inner loops of a whole network that streams: encoder, layers, running summary and decoder, for many streams.

Shapes: R streams, n layers, H channels, N modes. Modes and their constants are complex numbers written as pairs of
floats, ``(.., 2 N)``, the layout of the model's own state. All floats share one type, float32 or float64; the running
sum is float64 in either case. Nothing here may meet a NaN: what enters is checked by
:func:`models.spike.event_kernels.finite` before.
"""

from __future__ import annotations

import numpy as np

from .constants import LAST, POOL
from .event_kernels import NORM_NONE, TINY, exact, finite, jit, mix_events, normalise

__all__ = ["advance", "advance_once", "finite"]


@jit
def _layer(z, a, b, c, d, tau, u_r, soft, one, h, u, fired):
    """``h = A h + B z``, ``I = 2 Re(C h) + D z`` (c holds 2 C), then the neuron; who fired goes to ``fired``."""
    count = 0
    least = z.dtype.type(TINY)
    for i in range(d.shape[0]):
        x = z[i] + least
        current = d[i] * x
        for k in range(a.shape[1] // 2):
            m = 2 * k  # in this form the compiler turns pairs into vectors; a range of step 2 it does not
            re = a[i, m] * h[i, m] - a[i, m + 1] * h[i, m + 1] + b[i, m] * x
            im = a[i, m] * h[i, m + 1] + a[i, m + 1] * h[i, m] + b[i, m + 1] * x
            h[i, m] = re
            h[i, m + 1] = im
            current += c[i, m] * re - c[i, m + 1] * im
        before = tau[i] * u[i] + current
        if before >= one:
            fired[count] = i
            count += 1
            u[i] = before - one if soft else u_r[i]
        else:
            u[i] = before
    return count


@jit
def _encode(xs, ids, row, t, weight, bias, x):
    if ids.size:
        for i in range(x.shape[0]):
            x[i] = weight[ids[row, t], i]
        return
    for i in range(x.shape[0]):
        x[i] = bias[i]
    for k in range(xs.shape[2]):
        value = xs[row, t, k]
        for i in range(x.shape[0]):
            x[i] += value * weight[k, i]


@jit
def _answer(x, summary, seen, mode, weight, bias, out):
    """``weight (H, C)``: the logits of the summary after ``seen`` samples, or of this sample."""
    for j in range(out.shape[0]):
        out[j] = bias[j]
    for i in range(x.shape[0]):
        value = x[i]
        if mode == POOL:
            value = x.dtype.type(summary[i] / seen)
        for j in range(out.shape[0]):
            out[j] += value * weight[i, j]


@jit
def advance(first, last, xs, ids, out, encoder, layers, norms, kinds, decoder, h, u, summary, seen, counts) -> None:
    """Streams ``first`` to ``last``, all their samples, state in place.

    ``xs (R, L, d)`` numbers, or ``ids (R, L)`` of an embedding (the other one empty); ``out (R, L, C)`` the answer
    after each sample, or ``(R, 1, C)`` after the last one. ``encoder`` = (weight (d or V, H), bias (H,));
    ``layers`` = (a, b, c (n, H, 2N), d, tau, u_r (n, H), weight (n, H, 2H), bias (n, 2H));
    ``norms`` = (scale, shift (n, H), eps (1,)); ``kinds`` = (norm, prenorm, soft, mode); ``decoder`` = (weight (H, C),
    bias (C,)). State: ``h (n, R, H, 2N)``, ``u (n, R, H)``, ``summary (R, H)`` float64, ``seen (R,)`` int64.
    ``counts (R, n)`` int64 gains the spikes.
    """
    a, b, c, d, tau, u_r, weight, bias = layers
    scale, shift, eps = norms
    norm_kind, prenorm, soft, mode = kinds
    n, H = d.shape
    one = eps.dtype.type(1)
    x, z = np.empty(H, d.dtype), np.empty(H, d.dtype)
    mixed, fired = np.empty(2 * H, d.dtype), np.empty(H, np.int32)
    L = ids.shape[1] if ids.size else xs.shape[1]
    for row in range(first, last):
        for t in range(L):
            _encode(xs, ids, row, t, encoder[0], encoder[1], x)
            for k in range(n):
                if prenorm:
                    normalise(x, norm_kind, scale[k], shift[k], eps[0], one, z)
                else:
                    for i in range(H):
                        z[i] = x[i]
                count = _layer(z, a[k], b[k], c[k], d[k], tau[k], u_r[k], soft, one, h[k, row], u[k, row], fired)
                counts[row, k] += count
                mix_events(weight[k], bias[k], fired, count, mixed)
                for i in range(H):
                    x[i] += mixed[i] / (one + np.exp(-mixed[i + H]))
                if not prenorm and norm_kind != NORM_NONE:
                    normalise(x, norm_kind, scale[k], shift[k], eps[0], one, z)
                    for i in range(H):
                        x[i] = z[i]
            seen[row] += 1
            if mode == POOL:
                for i in range(H):
                    summary[row, i] += x[i]
            elif mode == LAST:
                for i in range(H):
                    summary[row, i] = x[i]
            if out.shape[1] == L:
                _answer(x, summary[row], seen[row], mode, decoder[0], decoder[1], out[row, t])
        if out.shape[1] != L and L:
            _answer(x, summary[row], seen[row], mode, decoder[0], decoder[1], out[row, 0])


@jit
def _part(numbers, at, rows, columns):
    """``(rows, columns)`` of the flat ``numbers`` from ``at`` on, and where the next part begins."""
    after = at + rows * columns
    return numbers[at:after].reshape(rows, columns), after


@jit
def _parts(numbers, at, n, rows, columns):
    after = at + n * rows * columns
    return numbers[at:after].reshape(n, rows, columns), after


@exact  # or the licence to assume that no NaN comes would reach the question
def advance_once(xs, ids, out, numbers, sizes, kinds, h, u, summary, count) -> bool:
    """One sample of every stream, all of which saw ``count`` before; False, and nothing done, if one is not finite.

    ``numbers``: what :func:`advance` calls encoder, layers, norms and decoder, one after another and flat, since every
    array costs a call some tenths of a microsecond; ``sizes`` = (rows of the encoder, n, H, 2N, C).
    """
    if not finite(xs.reshape(-1)):
        return False
    rows, n, H, pairs, C = sizes
    table, at = _part(numbers, 0, rows, H)
    shift, at = _part(numbers, at, 1, H)
    a, at = _parts(numbers, at, n, H, pairs)
    b, at = _parts(numbers, at, n, H, pairs)
    c, at = _parts(numbers, at, n, H, pairs)
    d, at = _part(numbers, at, n, H)
    tau, at = _part(numbers, at, n, H)
    u_r, at = _part(numbers, at, n, H)
    weight, at = _parts(numbers, at, n, H, 2 * H)
    bias, at = _part(numbers, at, n, 2 * H)
    scale, at = _part(numbers, at, n, H)
    offset, at = _part(numbers, at, n, H)
    eps, at = _part(numbers, at, 1, 1)
    answer, at = _part(numbers, at, H, C)
    last, at = _part(numbers, at, 1, C)
    seen, counts = np.full(u.shape[1], count, np.int64), np.zeros((u.shape[1], n), np.int64)
    layers, norms = (a, b, c, d, tau, u_r, weight, bias), (scale, offset, eps[0])
    decoder = answer, last[0]
    advance(
        0, u.shape[1], xs, ids, out, (table, shift[0]), layers, norms, kinds, decoder, h, u, summary, seen, counts
    )  # fmt: skip
    return True
