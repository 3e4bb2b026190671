"""The loops of :mod:`sdn.kinds.resonate`, called by :mod:`sdn.kinds.loops`; values equal the step's to the last bit.

With a pole re + i im, z_t = u_t + i v_t, r_t = re - d q_{t-1} (re where there is no refractory trace) and the gradients
G^u, G^v, G^q at u_t, v_t and q_t, from the last step on::

    k = (grad_t + G^q) psi(u_t - 1 - q_{t-1}),   g = G^u + k,   h = g u_{t-1} + G^v v_{t-1}         dI_t = d g
    G^u, G^v, G^q <- r_t g + im G^v,  r_t G^v - im g,  gamma G^q - k - d h
    re: sum h,   im: sum G^v u_{t-1} - g v_{t-1}
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..kernels.compiler import compiler
from ..kernels.simd import WIDTH, at_least, fma, fnma, load, select, splat, store
from ..kernels.simd_psi import FILES, psi
from .loops import SEAM

__all__ = ["WIDTH", "backward", "forward"]
jit = compiler([*FILES, Path(__file__)])


@jit
def _step(u, v, q, x, re, im, d, gamma, refractory, one, zero):
    """``(s_t, u_t, v_t, q_t)``."""
    shrink = re - d * q if refractory else re
    u, v = shrink * u - im * v + d * x, shrink * v + im * u
    s = select(at_least(u - one - q, zero), one, zero)
    return s, u, v, gamma * q + s if refractory else q


@jit
def forward(first, last, x, s, seams, state, parameters, step_size, gamma, refractory, L, W) -> None:
    """See :mod:`sdn.kinds.loops`; parameters re, im, state u, v, q."""
    one, zero, d, fading = splat(x.dtype.type(1)), splat(x.dtype.type(0)), splat(step_size), splat(gamma)
    blocks, n, third = W // WIDTH, (L + SEAM - 1) // SEAM, state.size // 3
    for task in range(first, last):
        group, c = task // blocks, task % blocks * WIDTH
        re, im = load(parameters, c), load(parameters, W + c)
        at, row = group * W + c, group * L * W + c
        u, v, q = load(state, at), load(state, third + at), load(state, 2 * third + at)
        for k in range(n):
            if seams.size:
                here = (group * n + k) * 3 * W + c
                store(seams, here, u)
                store(seams, here + W, v)
                store(seams, here + 2 * W, q)
            for t in range(k * SEAM, min(L, k * SEAM + SEAM)):
                fired, u, v, q = _step(u, v, q, load(x, row + t * W), re, im, d, fading, refractory, one, zero)
                store(s, row + t * W, fired)
        store(state, at, u)
        store(state, third + at, v)
        store(state, 2 * third + at, q)


@jit
def backward(
    first, last, grad, x, dx, seams, parameters, sums, step_size, gamma, refractory, kind, sharp, height, L, W
) -> None:
    """See :mod:`sdn.kinds.loops`."""
    one, zero, d, fading = splat(x.dtype.type(1)), splat(x.dtype.type(0)), splat(step_size), splat(gamma)
    blocks, n, half = W // WIDTH, (L + SEAM - 1) // SEAM, sums.size // 2
    past = np.empty(4 * SEAM * WIDTH, x.dtype)
    for task in range(first, last):
        group, c = task // blocks, task % blocks * WIDTH
        re, im = load(parameters, c), load(parameters, W + c)
        row = group * L * W + c
        to_u, to_v, to_q, by_re, by_im = zero, zero, zero, zero, zero
        for block in range(n):
            k = n - 1 - block
            here, begin = (group * n + k) * 3 * W + c, k * SEAM
            u, v, q = load(seams, here), load(seams, here + W), load(seams, here + 2 * W)
            steps = min(L - begin, SEAM)
            for i in range(steps):
                place = 4 * i * WIDTH
                store(past, place, u)
                store(past, place + WIDTH, v)
                store(past, place + 2 * WIDTH, q)
                before = q
                _, u, v, q = _step(u, v, q, load(x, row + (begin + i) * W), re, im, d, fading, refractory, one, zero)
                store(past, place + 3 * WIDTH, u - one - before)
            re_sum, im_sum = zero, zero
            for j in range(steps):
                i = steps - 1 - j
                place, t = 4 * i * WIDTH, begin + i
                u, v, q = load(past, place), load(past, place + WIDTH), load(past, place + 2 * WIDTH)
                slope = (load(grad, row + t * W) + to_q) * psi(load(past, place + 3 * WIDTH), kind, sharp, height)
                g = to_u + slope
                store(dx, row + t * W, d * g)
                by_shrink = fma(g, u, to_v * v)
                re_sum, im_sum = re_sum + by_shrink, fnma(g, v, fma(to_v, u, im_sum))
                shrink = re - d * q if refractory else re
                to_u, to_v = fma(shrink, g, im * to_v), fnma(im, g, shrink * to_v)
                if refractory:
                    to_q = fnma(d, by_shrink, fading * to_q - slope)
            by_re, by_im = by_re + re_sum, by_im + im_sum
        at = group * W + c
        store(sums, at, by_re)
        store(sums, half + at, by_im)
