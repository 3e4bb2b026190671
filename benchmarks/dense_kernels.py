"""The streaming engine's loops with a dense mix: every weight is multiplied, whether its neuron fired or not.

Signature and state are those of :func:`models.spike.stream_kernels.advance`, and so is all else. Of many streams the
layer's weights are read once a step: one matrix product for all of them, by the BLAS that comes with scipy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.spike import event_kernels, stream_kernels
from models.spike.constants import LAST, POOL
from models.spike.event_kernels import NORM_NONE, normalise
from models.spike.stream_kernels import _answer, _encode, _layer
from sdn.kernels.compiler import compiler

jit = compiler([Path(__file__), Path(event_kernels.__file__), Path(stream_kernels.__file__)], fastmath=True)
FEW = 4
"""Streams from which on BLAS is quicker than the loop here."""


@jit
def mix_dense(s, weight, bias, out) -> None:
    """``out (R, 2H) = bias + s (R, H) @ weight (H, 2H)``; of few streams four rows of ``weight`` a pass."""
    R, H = s.shape
    if R >= FEW:
        np.dot(s, weight, out)
        for r in range(R):
            for j in range(out.shape[1]):
                out[r, j] += bias[j]
        return
    for r in range(R):
        o = out[r]
        for j in range(o.shape[0]):
            o[j] = bias[j]
        k = 0
        while k + 4 <= H:
            s0, s1, s2, s3 = s[r, k], s[r, k + 1], s[r, k + 2], s[r, k + 3]
            w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            for j in range(o.shape[0]):
                o[j] += (s0 * w0[j] + s1 * w1[j]) + (s2 * w2[j] + s3 * w3[j])
            k += 4
        while k < H:
            s0, w0 = s[r, k], weight[k]
            for j in range(o.shape[0]):
                o[j] += s0 * w0[j]
            k += 1


@jit
def advance(first, last, xs, ids, out, encoder, layers, norms, kinds, decoder, h, u, summary, seen, counts) -> None:
    """As :func:`models.spike.stream_kernels.advance`."""
    a, b, c, d, tau, u_r, weight, bias = layers
    scale, shift, eps = norms
    norm_kind, prenorm, soft, mode = kinds
    n, H = d.shape
    one, R = eps.dtype.type(1), last - first
    x, z = np.empty((R, H), d.dtype), np.empty(H, d.dtype)
    s, mixed, fired = np.empty((R, H), d.dtype), np.empty((R, 2 * H), d.dtype), np.empty(H, np.int32)
    L = ids.shape[1] if ids.size else xs.shape[1]
    for t in range(L):
        for r in range(R):
            _encode(xs, ids, first + r, t, encoder[0], encoder[1], x[r])
        for k in range(n):
            for r in range(R):
                if prenorm:
                    normalise(x[r], norm_kind, scale[k], shift[k], eps[0], one, z)
                else:
                    for i in range(H):
                        z[i] = x[r, i]
                row = first + r
                count = _layer(z, a[k], b[k], c[k], d[k], tau[k], u_r[k], soft, one, h[k, row], u[k, row], fired)
                counts[row, k] += count
                for i in range(H):
                    s[r, i] = 0
                for i in range(count):
                    s[r, fired[i]] = one
            mix_dense(s, weight[k], bias[k], mixed)
            for r in range(R):
                for i in range(H):
                    x[r, i] += mixed[r, i] / (one + np.exp(-mixed[r, i + H]))
                if not prenorm and norm_kind != NORM_NONE:
                    normalise(x[r], norm_kind, scale[k], shift[k], eps[0], one, z)
                    for i in range(H):
                        x[r, i] = z[i]
        for r in range(R):
            row = first + r
            seen[row] += 1
            for i in range(H):
                if mode == POOL:
                    summary[row, i] += x[r, i]
                elif mode == LAST:
                    summary[row, i] = x[r, i]
            if out.shape[1] == L:
                _answer(x[r], summary[row], seen[row], mode, decoder[0], decoder[1], out[row, t])
    if out.shape[1] != L and L:
        for r in range(R):
            row = first + r
            _answer(x[r], summary[row], seen[row], mode, decoder[0], decoder[1], out[row, 0])
