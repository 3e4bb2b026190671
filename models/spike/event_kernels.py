"""Compiled inner loops of the event-driven engine: one core, no allocation, everything stacked over layers.

Shapes: n layers, H channels, N modes. Complex numbers are split into real and imaginary planes so that the loop over
modes is plain vector arithmetic. All floats share one type, float32 or float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdn.kernels.compiler import compiler

from .constants import NORMS

TINY = 1e-20
"""Added to every input of a state-space model: in silence its modes would decay to subnormal numbers and a step take
30 times as long; so they stay where arithmetic is fast, twenty orders of magnitude below a threshold."""
NORM_NONE, NORM_AFFINE = NORMS["none"], NORMS["affine"]
_FILES = [Path(__file__).with_name(name) for name in ("constants.py", "event_kernels.py", "stream_kernels.py")]
exact = compiler(_FILES)
jit = compiler(_FILES, fastmath=True)
"""These loops take the licence to reorder sums, and to assume that no NaN comes; :func:`finite` is asked before."""


@exact
def finite(x) -> bool:
    """Whether all of the flat array ``x`` is finite; compiled without the licence to assume so."""
    return np.isfinite(x).all()


@jit
def _ssm_and_neuron(z, a_re, a_im, c_re, c_im, d, tau, u_r, soft, one, h_re, h_im, u, fired):
    """``h = A h + z``, ``I = Re(C h) + D z``, then the neuron; indices of the channels that fire go to ``fired``."""
    H, N = a_re.shape
    count = 0
    least = z.dtype.type(TINY)
    for i in range(H):
        x = z[i] + least
        current = d[i] * x
        for m in range(N):
            re = a_re[i, m] * h_re[i, m] - a_im[i, m] * h_im[i, m] + x
            im = a_re[i, m] * h_im[i, m] + a_im[i, m] * h_re[i, m]
            h_re[i, m] = re
            h_im[i, m] = im
            current += c_re[i, m] * re - c_im[i, m] * im
        before = tau[i] * u[i] + current
        if before >= one:
            fired[count] = i
            count += 1
            u[i] = before - one if soft else u_r[i]
        else:
            u[i] = before
    return count


@jit
def mix_events(weight, bias, fired, count, out) -> None:
    """``out = bias + sum of the rows of weight (H, 2H) of the channels that fired``, four rows a pass."""
    width = out.shape[0]
    for j in range(width):
        out[j] = bias[j]
    k = 0
    while k + 4 <= count:
        w0, w1, w2, w3 = weight[fired[k]], weight[fired[k + 1]], weight[fired[k + 2]], weight[fired[k + 3]]
        for j in range(width):
            out[j] += (w0[j] + w1[j]) + (w2[j] + w3[j])
        k += 4
    while k < count:
        w0 = weight[fired[k]]
        for j in range(width):
            out[j] += w0[j]
        k += 1


@jit
def normalise(x, kind, scale, shift, eps, one, out) -> None:
    H = x.shape[0]
    if kind == NORM_NONE:
        for i in range(H):
            out[i] = x[i]
    elif kind == NORM_AFFINE:
        for i in range(H):
            out[i] = x[i] * scale[i] + shift[i]
    else:
        mean = one - one
        for i in range(H):
            mean += x[i]
        mean /= H * one
        var = one - one
        for i in range(H):
            var += (x[i] - mean) * (x[i] - mean)
        inv = one / np.sqrt(var / (H * one) + eps)
        for i in range(H):
            out[i] = (x[i] - mean) * inv * scale[i] + shift[i]


@jit
def advance(xs, ys, ssm, neuron, soft, mix, norm, norm_kind, prenorm, state, work, counts) -> None:
    """Run ``xs (L, H)`` through all layers into ``ys (L, H)``, updating ``state``.

    ``ssm`` = (a_re, a_im, c_re, c_im (n, H, N), d (n, H)); ``neuron`` = (tau, u_r (n, H));
    ``mix`` = (weight (n, H, 2H), bias (n, 2H)); ``norm`` = (scale, shift (n, H), eps (1,));
    ``state`` = (h_re, h_im (n, H, N), u (n, H));
    ``work`` = (x, z (H,), out (2H,), fired (H,) int32, one (1,)); ``counts (n,)`` int64 gains the spikes of each layer.
    """
    a_re, a_im, c_re, c_im, d = ssm
    tau, u_r = neuron
    weight, bias = mix
    scale, shift, eps = norm
    h_re, h_im, u = state
    x, z, out, fired, ones = work
    one = ones[0]
    H = x.shape[0]
    for t in range(xs.shape[0]):
        for i in range(H):
            x[i] = xs[t, i]
        for n in range(d.shape[0]):
            if prenorm:
                normalise(x, norm_kind, scale[n], shift[n], eps[0], one, z)
            else:
                for i in range(H):
                    z[i] = x[i]
            count = _ssm_and_neuron(
                z, a_re[n], a_im[n], c_re[n], c_im[n], d[n], tau[n], u_r[n], soft, one, h_re[n], h_im[n], u[n], fired
            )
            counts[n] += count
            mix_events(weight[n], bias[n], fired, count, out)
            for i in range(H):
                x[i] += out[i] / (one + np.exp(-out[i + H]))
            if not prenorm and norm_kind != NORM_NONE:
                normalise(x, norm_kind, scale[n], shift[n], eps[0], one, z)
                for i in range(H):
                    x[i] = z[i]
        for i in range(H):
            ys[t, i] = x[i]
