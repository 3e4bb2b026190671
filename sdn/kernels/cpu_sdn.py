"""A reduced SDN of one layer, compiled with numba: from current to spikes in one pass, its channels never in memory.

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
def _apply(out, bias, weights, first, count, source, stride, steps):
    """out[t] = bias + sum_i weights[first + i] source[i * stride + t], i < count."""
    for t in range(steps):
        out[t] = bias
    for i in range(0, count - 3, 4):
        w0, w1, w2, w3 = weights[first + i], weights[first + i + 1], weights[first + i + 2], weights[first + i + 3]
        # max tells the compiler that no index is negative, which lets it vectorise
        s0, s1 = max(i * stride, 0), max((i + 1) * stride, 0)
        s2, s3 = max((i + 2) * stride, 0), max((i + 3) * stride, 0)
        for t in range(steps):
            out[t] = out[t] + w0 * source[s0 + t] + w1 * source[s1 + t] + w2 * source[s2 + t] + w3 * source[s3 + t]
    for i in range(count // 4 * 4, count):
        w, s0 = weights[first + i], max(i * stride, 0)
        for t in range(steps):
            out[t] += w * source[s0 + t]


@jit(fastmath={"contract"})
def forward(first, last, current, s, mem, v_th, conv, conv_bias, mix, mix_bias, out, out_bias, L) -> None:
    """Rows ``first`` to ``last``. All arrays flat; ``mem`` is empty if not wanted, ``v_th (H,)`` if there is none."""
    d, k = conv_bias.size, max(conv.size // conv_bias.size, 1)
    x = np.zeros(k + STEPS, conv.dtype)
    a, b, m = np.empty(d * STEPS, conv.dtype), np.empty(STEPS, conv.dtype), np.empty(STEPS, conv.dtype)
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for row in range(first, last):
        for i in range(k):
            x[i] = zero
        scale = v_th[row % v_th.size] if v_th.size else one
        for begin in range(0, L, STEPS):
            steps, base = min(STEPS, L - begin), max(row * L + begin, 0)
            for t in range(steps):
                x[k + t] = current[base + t]
                m[t] = out_bias[0]
            if v_th.size:
                for t in range(steps):
                    x[k + t] = current[base + t] / scale
            for c in range(d):
                _apply(b, conv_bias[c], conv, c * k, k, x, 1, steps)
                for t in range(steps):
                    a[c * STEPS + t] = zero if b[t] < zero else b[t]
            for c in range(d):
                _apply(b, mix_bias[c], mix, c * d, d, a, STEPS, steps)
                w = out[c]
                for t in range(steps):
                    m[t] += w * (zero if b[t] < zero else b[t])
            for t in range(steps):
                s[base + t] = one if m[t] + x[k + t] >= one else zero
            if mem.size:
                for t in range(steps):
                    mem[base + t] = m[t]
            for i in range(k):
                x[i] = x[steps + i]


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
