"""The loops of :mod:`sdn.kinds.alif`, as :mod:`sdn.kinds.loops` calls them; values equal the step's to the last bit.

With the gradients G^u, G^a at u_t and a_t, from the last step on::

    h = grad_t + G^a,   k = h psi(v_t),   g = G^u + k           v_t = u'_t - 1 - beta a_{t-1},  g: at u'_t and at I_t
    G^u, G^a <- tau g, rho G^a - beta k
    tau: sum g u_{t-1},   rho: sum G^a a_{t-1},   beta: - sum k a_{t-1}
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
def _step(u, a, x, tau, rho, beta, one, zero):
    """``(v_t, s_t, u_t, a_t)``."""
    before = tau * u + x
    v = before - one - beta * a
    s = select(at_least(v, zero), one, zero)
    return v, s, before - s, rho * a + s


@jit
def forward(first, last, x, s, seams, state, parameters, L, W) -> None:
    """See :mod:`sdn.kinds.loops`; parameters tau, rho, beta, state u, a."""
    one, zero = splat(x.dtype.type(1)), splat(x.dtype.type(0))
    blocks, n, half = W // WIDTH, (L + SEAM - 1) // SEAM, state.size // 2
    for q in range(first, last):
        group, c = q // blocks, q % blocks * WIDTH
        tau, rho, beta = load(parameters, c), load(parameters, W + c), load(parameters, 2 * W + c)
        at, row = group * W + c, group * L * W + c
        u, a = load(state, at), load(state, half + at)
        for k in range(n):
            if seams.size:
                here = (group * n + k) * 2 * W + c
                store(seams, here, u)
                store(seams, here + W, a)
            for t in range(k * SEAM, min(L, k * SEAM + SEAM)):
                _, fired, u, a = _step(u, a, load(x, row + t * W), tau, rho, beta, one, zero)
                store(s, row + t * W, fired)
        store(state, at, u)
        store(state, half + at, a)


@jit
def backward(first, last, grad, x, dx, seams, parameters, sums, kind, sharp, height, L, W) -> None:
    """See :mod:`sdn.kinds.loops`."""
    one, zero = splat(x.dtype.type(1)), splat(x.dtype.type(0))
    blocks, n, third = W // WIDTH, (L + SEAM - 1) // SEAM, sums.size // 3
    past = np.empty(3 * SEAM * WIDTH, x.dtype)
    for q in range(first, last):
        group, c = q // blocks, q % blocks * WIDTH
        tau, rho, beta = load(parameters, c), load(parameters, W + c), load(parameters, 2 * W + c)
        row = group * L * W + c
        to_u, to_a, by_tau, by_rho, by_beta = zero, zero, zero, zero, zero
        for block in range(n):
            k = n - 1 - block
            here, begin = (group * n + k) * 2 * W + c, k * SEAM
            u, a = load(seams, here), load(seams, here + W)
            steps = min(L - begin, SEAM)
            for i in range(steps):
                place = 3 * i * WIDTH
                store(past, place, u)
                store(past, place + WIDTH, a)
                v, _, u, a = _step(u, a, load(x, row + (begin + i) * W), tau, rho, beta, one, zero)
                store(past, place + 2 * WIDTH, v)
            tau_sum, rho_sum, beta_sum = zero, zero, zero
            for j in range(steps):
                i = steps - 1 - j
                place, t = 3 * i * WIDTH, begin + i
                u, a = load(past, place), load(past, place + WIDTH)
                slope = (load(grad, row + t * W) + to_a) * psi(load(past, place + 2 * WIDTH), kind, sharp, height)
                g = to_u + slope
                store(dx, row + t * W, g)
                tau_sum, rho_sum, beta_sum = fma(g, u, tau_sum), fma(to_a, a, rho_sum), fnma(slope, a, beta_sum)
                to_u, to_a = tau * g, fnma(beta, slope, rho * to_a)
            by_tau, by_rho, by_beta = by_tau + tau_sum, by_rho + rho_sum, by_beta + beta_sum
        at = group * W + c
        store(sums, at, by_tau)
        store(sums, third + at, by_rho)
        store(sums, 2 * third + at, by_beta)
