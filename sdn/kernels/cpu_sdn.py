"""A reduced SDN, compiled with numba: from current to spikes in one pass, its channels never in memory.

Time is the vector axis: a row is taken 256 steps at a time, so all intermediate values of a block stay in the first
cache. Four weights are applied per pass over a block, since one would be bound by loading and storing the sum.
Multiply and add may contract here (the network is an approximation anyway); nothing else is relaxed, NaN stays NaN.
"""

from __future__ import annotations

import numpy as np

from .cpu_jit import jit
from .cpu_psi import TRIANGLE, slope, triangle

STEPS = 256


@jit(fastmath={"contract"})
def _apply(out, bias, weights, first, count, source, at, stride, steps):
    """out[t] = bias + sum_i weights[first + i] source[at + i * stride + t], i < count."""
    i = 0
    if count >= 4:
        w0, w1, w2, w3 = weights[first], weights[first + 1], weights[first + 2], weights[first + 3]
        # max tells the compiler that no index is negative, which lets it vectorise
        s0, s1, s2, s3 = max(at, 0), max(at + stride, 0), max(at + 2 * stride, 0), max(at + 3 * stride, 0)
        for t in range(steps):
            out[t] = bias + w0 * source[s0 + t] + w1 * source[s1 + t] + w2 * source[s2 + t] + w3 * source[s3 + t]
        i = 4
    else:
        for t in range(steps):
            out[t] = bias
    while i + 4 <= count:
        w0, w1, w2, w3 = weights[first + i], weights[first + i + 1], weights[first + i + 2], weights[first + i + 3]
        s0, s1 = max(at + i * stride, 0), max(at + (i + 1) * stride, 0)
        s2, s3 = max(at + (i + 2) * stride, 0), max(at + (i + 3) * stride, 0)
        for t in range(steps):
            out[t] = out[t] + w0 * source[s0 + t] + w1 * source[s1 + t] + w2 * source[s2 + t] + w3 * source[s3 + t]
        i += 4
    if i + 2 <= count:
        w0, w1 = weights[first + i], weights[first + i + 1]
        s0, s1 = max(at + i * stride, 0), max(at + (i + 1) * stride, 0)
        for t in range(steps):
            out[t] = out[t] + w0 * source[s0 + t] + w1 * source[s1 + t]
        i += 2
    if i < count:
        w0, s0 = weights[first + i], max(at + i * stride, 0)
        for t in range(steps):
            out[t] += w0 * source[s0 + t]


@jit
def _relu(out, at, source, steps):
    zero, at = source.dtype.type(0), max(at, 0)
    for t in range(steps):
        out[at + t] = zero if source[t] < zero else source[t]


@jit(fastmath={"contract"})
def forward(first, last, current, s, mem, v_th, weights, d, k, layers, L) -> None:
    """Rows ``first`` to ``last``. All arrays flat; ``mem`` is empty if not wanted, ``v_th (H,)`` if there is none.

    ``weights``: of all layers in turn, then of the output, as :class:`sdn.network.ReducedSDN` has them. What a layer
    hands to the next is kept from block to block as far as the next one's window reaches.
    """
    x, width = np.zeros(k + STEPS, weights.dtype), k - 1 + STEPS
    h = np.zeros(max(layers - 1, 1) * d * width, weights.dtype)
    a, b, m = np.empty(d * STEPS, x.dtype), np.empty(STEPS, x.dtype), np.empty(STEPS, x.dtype)
    one, zero, size = x.dtype.type(1), x.dtype.type(0), d * (k + d + 2)
    for row in range(first, last):
        x[:k] = zero
        h[:] = zero
        scale = v_th[row % v_th.size] if v_th.size else one
        for begin in range(0, L, STEPS):
            steps, base = min(STEPS, L - begin), max(row * L + begin, 0)
            for t in range(steps):
                x[k + t] = current[base + t]
                m[t] = weights[layers * size + d]
            if v_th.size:
                for t in range(steps):
                    x[k + t] = current[base + t] / scale
            for layer in range(layers):
                conv, mix = layer * size, layer * size + d * (k + 1)
                for c in range(d):
                    bias, source = weights[conv + d * k + c], ((layer - 1) * d + c) * width
                    if layer:
                        _apply(b, bias, weights, conv + c * k, k, h, source, 1, steps)
                    else:
                        _apply(b, bias, weights, c * k, k, x, 0, 1, steps)
                    _relu(a, c * STEPS, b, steps)
                for c in range(d):
                    _apply(b, weights[mix + d * d + c], weights, mix + c * d, d, a, 0, STEPS, steps)
                    if layer + 1 < layers:
                        _relu(h, (layer * d + c) * width + k - 1, b, steps)
                        continue
                    w = weights[layers * size + c]
                    for t in range(steps):
                        m[t] += w * (zero if b[t] < zero else b[t])
            for t in range(steps):
                s[base + t] = one if m[t] + x[k + t] >= one else zero
            if mem.size:
                for t in range(steps):
                    mem[base + t] = m[t]
            for i in range(k):
                x[i] = x[steps + i]
            for c in range((layers - 1) * d):
                for i in range(c * width, c * width + k - 1):
                    h[i] = h[steps + i]


@jit
def backward(first, last, current, grad, out, mem, v_th, sums, L, kind, sharp, height) -> None:
    """Rows ``first`` to ``last`` of dI; ``sums (R,)``: -sum g I / v_th^2 a row, empty if not wanted."""
    one, zero = mem.dtype.type(1), mem.dtype.type(0)
    work = np.empty(2 * STEPS, mem.dtype)
    for row in range(first, last):
        scale = v_th[row % v_th.size] if v_th.size else one
        total = 0.0
        for begin in range(0, L, STEPS):
            steps, base = min(STEPS, L - begin), max(row * L + begin, 0)
            if kind == TRIANGLE:
                for t in range(steps):
                    distance = abs(mem[base + t] + current[base + t] / scale - one)
                    out[base + t] = grad[base + t] * triangle(distance, sharp, height, zero) / scale
            else:
                for t in range(steps):
                    work[t] = mem[base + t] + current[base + t] / scale
                    work[STEPS + t] = grad[base + t]
                slope(work, STEPS, 0, steps, kind, sharp, height)
                for t in range(steps):
                    out[base + t] = work[STEPS + t] / scale
            if sums.size:
                part = zero
                for t in range(steps):
                    part += out[base + t] * current[base + t]
                total += part
        if sums.size:
            sums[row] = -total / scale
