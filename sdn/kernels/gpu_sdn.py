"""Triton kernels of a reduced SDN of one or two layers: from the current to the spikes, no channel ever in memory.

A program owns a stretch of one row. Channels lie within a thread and time lies across threads: the k shifted windows
are k coalesced reads of which all but one hit the first-level cache, and both products are sums inside a thread, in
float32 (or float64), never TF32. Per step and layer that is about d (k + d) multiply-adds for two numbers moved, so
with d = k = 8 arithmetic and memory are of the same order; two layers take the first one k times.
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
def _first(I, weights, inverse, start, t, L, d, k, D: tl.constexpr, K: tl.constexpr, STEPS: tl.constexpr):
    """What the first layer hands on at the steps ``t (STEPS,)``: ``(D, STEPS)``, channels from d on zero."""
    offset = tl.arange(0, K)[:, None]
    source = t[None, :] - k + offset
    window = real(tl.load(I + start + source, mask=(offset < k) & (source >= 0) & (source < L), other=0.0))
    mix = weights + d * k + d
    b = _vector(mix + d * d, d, 1, inverse, D) + tl.zeros((D, STEPS), inverse.dtype)
    for i in range(0, d):
        taps = _vector(weights + i * k, k, 1, inverse, K) * inverse
        a = _relu(tl.sum(taps * window, axis=0) + tl.load(weights + d * k + i).to(inverse.dtype))
        b += _vector(mix + i, d, d, inverse, D) * a[None, :]
    return _relu(b)


@triton.jit
def sdn_spikes(
    I, v_th, weights, s, mem, H, L, d, k,
    SCALED: tl.constexpr, KEEP: tl.constexpr, LAYERS: tl.constexpr, D: tl.constexpr, K: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    """Spikes (mem too if ``KEEP``) of STEPS steps of row ``program_id(0)``; D, K: d and k rounded up to powers of 2.

    ``weights``: of the one or two ``LAYERS`` in turn, then of the output. The second layer's window needs the first at
    k steps; each is computed anew, as no thread can read what another holds.
    """
    row = tl.program_id(0)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    start = row.to(tl.int64) * L
    x = real(tl.load(I + start + t, mask=t < L, other=0.0))
    inverse = tl.full((1, 1), 1.0, x.dtype)
    if SCALED:
        threshold = tl.load(v_th + row % H)
        x = divide(x, threshold)
        inverse = divide(inverse, threshold)
    size = d * (k + d + 2)
    if LAYERS == 1:
        h = _first(I, weights, inverse, start, t, L, d, k, D, K, STEPS)
    else:
        second = weights + size
        mix = second + d * k + d
        a = _vector(second + d * k, d, 1, x, D) + tl.zeros((D, STEPS), x.dtype)
        for lag in range(0, k):
            h = _first(I, weights, inverse, start, t - lag, L, d, k, D, K, STEPS)
            a += _vector(second + k - 1 - lag, d, k, x, D) * tl.where(t[None, :] >= lag, h, 0.0)
        a = _relu(a)
        h = _vector(mix + d * d, d, 1, x, D) + tl.zeros((D, STEPS), x.dtype)
        channel = tl.arange(0, D)[:, None]
        for i in range(0, d):
            h += _vector(mix + i, d, d, x, D) * tl.sum(tl.where(channel == i, a, 0.0), axis=0)[None, :]
        h = _relu(h)
    out = weights + LAYERS * size
    predicted = tl.sum(_vector(out, d, 1, x, D) * h, axis=0) + tl.load(out + d).to(x.dtype)
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
