"""Triton kernels of a reduced SDN of depth 1: from the current to the spikes in one pass, no channel ever in memory.

A program owns a stretch of one row. Channels lie within a thread and time lies across threads: the k shifted windows
are k coalesced reads of which all but one hit the first-level cache, and both products are sums inside a thread, in
float32 (or float64), never TF32. Per step that is about d (k + d) multiply-adds for two numbers moved, so with
d = k = 8 arithmetic and memory are of the same order.
"""

# Device functions have no type annotations.
# ruff: noqa: ANN201
from __future__ import annotations

import triton
import triton.language as tl

from .gpu_tile import divide, psi, real


@triton.jit
def _relu(x):
    """max(0, x); NaN stays NaN, as in PyTorch."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def _vector(ptr, n, stride, like, N: tl.constexpr):
    """n weights ``stride`` apart as ``(N, 1)``, padded with zeros, in the type of ``like``."""
    i = tl.arange(0, N)
    return tl.load(ptr + i * stride, mask=i < n, other=0.0).to(like.dtype)[:, None]


@triton.jit
def sdn_spikes(
    I, v_th, conv_weight, conv_bias, mix_weight, mix_bias, out_weight, out_bias, s, mem, H, L, d, k,
    SCALED: tl.constexpr, KEEP: tl.constexpr, D: tl.constexpr, K: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Spikes (mem too if ``KEEP``) of STEPS steps of row ``program_id(0)``; D, K: d and k rounded up to powers of 2."""
    row = tl.program_id(0)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    start = row.to(tl.int64) * L
    offset = tl.arange(0, K)[:, None]
    source = t[None, :] - k + offset
    window = real(tl.load(I + start + source, mask=(offset < k) & (source >= 0) & (source < L), other=0.0))
    x = real(tl.load(I + start + t, mask=t < L, other=0.0))
    inverse = tl.full((1, 1), 1.0, x.dtype)
    if SCALED:
        threshold = tl.load(v_th + row % H)
        x = divide(x, threshold)
        inverse = divide(inverse, threshold)
    b = _vector(mix_bias, d, 1, x, D) + tl.zeros((D, STEPS), x.dtype)
    for i in range(0, d):
        taps = _vector(conv_weight + i * k, k, 1, x, K) * inverse
        a = _relu(tl.sum(taps * window, axis=0) + tl.load(conv_bias + i).to(x.dtype))
        b += _vector(mix_weight + i, d, d, x, D) * a[None, :]
    predicted = tl.sum(_vector(out_weight, d, 1, x, D) * _relu(b), axis=0) + tl.load(out_bias).to(x.dtype)
    spikes = tl.where(predicted + x >= 1, 1.0, 0.0)
    tl.store(s + start + t, spikes.to(s.dtype.element_ty), mask=t < L)
    if KEEP:
        tl.store(mem + start + t, predicted, mask=t < L)


@triton.jit
def sdn_back(
    grad, I, mem, v_th, dI, sums, R, H, L, chunk,
    SCALED: tl.constexpr, SUMS: tl.constexpr, PSI: tl.constexpr, SHARP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """dI = grad psi(mem + x - 1) / v_th in chunk ``program_id(1)`` of row ``program_id(0)``; sums: ``(chunks, R)``."""
    row, c = tl.program_id(0), tl.program_id(1)
    begin, start = c * chunk, row.to(tl.int64) * L
    end = tl.minimum(begin + chunk, L)
    column = tl.arange(0, STEPS)
    total = tl.zeros((STEPS,), mem.dtype.element_ty)
    for base in range(begin, end, STEPS):
        t = base + column
        x = real(tl.load(I + start + t, mask=t < end, other=0.0))
        g = real(tl.load(grad + start + t, mask=t < end, other=0.0))
        predicted = tl.load(mem + start + t, mask=t < end, other=0.0)
        if SCALED:
            threshold = tl.load(v_th + row % H)
            x = divide(x, threshold)
            g = divide(g, threshold)
        g = g * psi(predicted + x - 1, PSI, SHARP)
        if SUMS:
            total -= g * x
        tl.store(dI + start + t, g.to(dI.dtype.element_ty), mask=t < end)
    if SUMS:
        tl.store(sums + c.to(tl.int64) * R + row, tl.sum(total, axis=0))
