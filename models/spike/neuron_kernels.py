# ruff: noqa: ANN201
"""The neurons that a layer runs between its transforms, WIDTH channels of one sample at a time, and their gradients.

Currents stand in the buffers of :mod:`models.spike.conv_kernels`; the result, ``out[row]`` on, has H numbers a step. It
is u', the potential before the spike, of which the spikes are H(u' - 1); or for any other neuron the current itself.
"""

from __future__ import annotations

from sdn.kernels.simd import WIDTH, above, at_least, broadcast, fma, load, select, splat, store, total
from sdn.kernels.simd_psi import psi

from .compiled import jit

STEP = 2 * WIDTH
CURRENT, HARD, SOFT, NETWORK = range(4)
"""What follows the convolution: nothing yet, an exact neuron with that reset, an SDN."""


@jit
def respond(buf, half, out, row, kind, tau, u_r, sdn, sizes, channel, work, L, H):
    """The result for one sample of the channels from ``channel`` on; ``tau``, ``u_r`` ``(H,)``."""
    if kind == CURRENT:
        for t in range(L):
            store(out, row + t * H, load(buf, t * STEP + half * WIDTH))
    elif kind == NETWORK:
        _network(buf, half, out, row, sdn, sizes, work, L, H)
    else:
        _leaky(buf, half, out, row, load(tau, channel), load(u_r, channel), kind == SOFT, L, H)


@jit
def _leaky(buf, half, out, row, decay, reset, soft, L, H):
    """See :mod:`sdn.lif`."""
    one, u = splat(buf.dtype.type(1)), splat(buf.dtype.type(0))
    for t in range(L):
        before = decay * u + load(buf, t * STEP + half * WIDTH)
        store(out, row + t * H, before)
        u = select(at_least(before, one), before - one if soft else reset, before)


# -------------------------------------------------------------------------------------------------------------- the SDN


@jit
def _relu(x, zero):
    return select(above(zero, x), zero, x)


@jit
def _two_by_four(weights, first, second, count, source, at, stride, a, b):
    """``a + Σ_i weights[first + i] x_i`` of 4 steps, and ``b + ...`` of ``second``; x_i of step j: vector i + j."""
    a0, a1, a2, a3, b0, b1, b2, b3 = a, a, a, a, b, b, b, b
    for i in range(count):
        v, w, p = broadcast(weights, first + i), broadcast(weights, second + i), at + i * stride[0]
        x = load(source, p)
        a0, b0 = fma(v, x, a0), fma(w, x, b0)
        x = load(source, p + stride[1])
        a1, b1 = fma(v, x, a1), fma(w, x, b1)
        x = load(source, p + 2 * stride[1])
        a2, b2 = fma(v, x, a2), fma(w, x, b2)
        x = load(source, p + 3 * stride[1])
        a3, b3 = fma(v, x, a3), fma(w, x, b3)
    return a0, a1, a2, a3, b0, b1, b2, b3


@jit
def _each_by_four(weights, first, second, count, source, at, other, a, b):
    """The same where the two have inputs of their own, the second's at ``other``; all are neighbours."""
    a0, a1, a2, a3, b0, b1, b2, b3 = a, a, a, a, b, b, b, b
    for i in range(count):
        v, w, p, q = broadcast(weights, first + i), broadcast(weights, second + i), at + i * WIDTH, other + i * WIDTH
        a0, b0 = fma(v, load(source, p), a0), fma(w, load(source, q), b0)
        a1, b1 = fma(v, load(source, p + WIDTH), a1), fma(w, load(source, q + WIDTH), b1)
        a2, b2 = fma(v, load(source, p + 2 * WIDTH), a2), fma(w, load(source, q + 2 * WIDTH), b2)
        a3, b3 = fma(v, load(source, p + 3 * WIDTH), a3), fma(w, load(source, q + 3 * WIDTH), b3)
    return a0, a1, a2, a3, b0, b1, b2, b3


@jit
def _keep(work, c, other, zero, a0, a1, a2, a3, b0, b1, b2, b3, at, gap):
    """Channels c and ``other`` of 4 steps, rectified, from ``at`` on; ``gap`` numbers from channel to channel."""
    place = at + c * gap
    store(work, place, _relu(a0, zero))
    store(work, place + WIDTH, _relu(a1, zero))
    store(work, place + 2 * WIDTH, _relu(a2, zero))
    store(work, place + 3 * WIDTH, _relu(a3, zero))
    place = at + other * gap
    store(work, place, _relu(b0, zero))
    store(work, place + WIDTH, _relu(b1, zero))
    store(work, place + 2 * WIDTH, _relu(b2, zero))
    store(work, place + 3 * WIDTH, _relu(b3, zero))


@jit
def _four(source, at, gap, sdn, sizes, work):
    """mem of 4 steps, from the vectors x of the k steps before the first on, ``gap`` numbers apart in ``source``.

    ``work`` has a room of 4 steps a channel, and for every layer but the last one of k - 1 + 4: what it handed on
    before these steps, and in them.
    """
    d, k, layers = sizes[0], sizes[1], sizes[2]
    zero, hold, rooms = splat(sdn.dtype.type(0)), 4 * WIDTH, d * 4 * WIDTH
    size, width = d * (k + d + 2), (k + 3) * WIDTH
    for layer in range(layers):
        conv, mix = layer * size, layer * size + d * k + d
        last, h = layer + 1 == layers, rooms + layer * d * width
        for c in range(0, d, 2):
            other = min(c + 1, d - 1)
            a, b = broadcast(sdn, conv + d * k + c), broadcast(sdn, conv + d * k + other)
            v, w = conv + c * k, conv + other * k
            if layer == 0:
                a0, a1, a2, a3, b0, b1, b2, b3 = _two_by_four(sdn, v, w, k, source, at, (gap, gap), a, b)
            else:
                before = h - d * width
                a0, a1, a2, a3, b0, b1, b2, b3 = _each_by_four(
                    sdn, v, w, k, work, before + c * width, before + other * width, a, b
                )
            _keep(work, c, other, zero, a0, a1, a2, a3, b0, b1, b2, b3, 0, hold)
        if last:
            continue
        for c in range(0, d, 2):
            other = min(c + 1, d - 1)
            a, b = broadcast(sdn, mix + d * d + c), broadcast(sdn, mix + d * d + other)
            a0, a1, a2, a3, b0, b1, b2, b3 = _two_by_four(
                sdn, mix + c * d, mix + other * d, d, work, 0, (hold, WIDTH), a, b
            )
            _keep(work, c, other, zero, a0, a1, a2, a3, b0, b1, b2, b3, h + (k - 1) * WIDTH, width)
    out, mix = layers * size, layers * size - d * (d + 1)
    m0 = broadcast(sdn, out + d)
    m1, m2, m3 = m0, m0, m0
    for c in range(0, d, 2):
        other = min(c + 1, d - 1)
        a, b = broadcast(sdn, mix + d * d + c), broadcast(sdn, mix + d * d + other)
        a0, a1, a2, a3, b0, b1, b2, b3 = _two_by_four(
            sdn, mix + c * d, mix + other * d, d, work, 0, (hold, WIDTH), a, b
        )
        v, w = broadcast(sdn, out + c), broadcast(sdn, out + other) if other > c else zero
        m0, m1 = fma(v, _relu(a0, zero), m0), fma(v, _relu(a1, zero), m1)
        m2, m3 = fma(v, _relu(a2, zero), m2), fma(v, _relu(a3, zero), m3)
        if other > c:
            m0, m1 = fma(w, _relu(b0, zero), m0), fma(w, _relu(b1, zero), m1)
            m2, m3 = fma(w, _relu(b2, zero), m2), fma(w, _relu(b3, zero), m3)
    for c in range((layers - 1) * d):
        for i in range(k - 1):
            place = rooms + c * width + i * WIDTH
            store(work, place, load(work, place + 4 * WIDTH))
    return m0, m1, m2, m3


def room(d: int, k: int, layers: int) -> int:
    """Numbers that :func:`respond` needs as ``work`` for an SDN of width d, kernel k and so many layers."""
    return (4 * d + (layers - 1) * d * (k + 3) + k + 4) * WIDTH


@jit
def _network(buf, half, out, row, sdn, sizes, work, L, H):
    """mem_t + x_t by a reduced SDN; ``sdn``: its weights in the order of :func:`sdn.kernels.cpu_sdn.forward`."""
    d, k, layers = sizes[0], sizes[1], sizes[2]
    zero, at, copy = splat(buf.dtype.type(0)), half * WIDTH, (4 * d + (layers - 1) * d * (k + 3)) * WIDTH
    for i in range(4 * d, copy // WIDTH):
        store(work, i * WIDTH, zero)
    for t in range(0, L, 4):
        if t >= k and t + 4 <= L:
            m0, m1, m2, m3 = _four(buf, (t - k) * STEP + at, STEP, sdn, sizes, work)
            x0, x1 = load(buf, t * STEP + at), load(buf, t * STEP + STEP + at)
            x2, x3 = load(buf, t * STEP + 2 * STEP + at), load(buf, t * STEP + 3 * STEP + at)
            store(out, row + t * H, m0 + x0)
            store(out, row + t * H + H, m1 + x1)
            store(out, row + t * H + 2 * H, m2 + x2)
            store(out, row + t * H + 3 * H, m3 + x3)
        else:
            for i in range(k + 4):
                here = t - k + i
                store(work, copy + i * WIDTH, load(buf, here * STEP + at) if 0 <= here < L else zero)
            m0, m1, m2, m3 = _four(work, copy, WIDTH, sdn, sizes, work)
            x = copy + k * WIDTH
            store(out, row + t * H, m0 + load(work, x))
            if t + 1 < L:
                store(out, row + t * H + H, m1 + load(work, x + WIDTH))
            if t + 2 < L:
                store(out, row + t * H + 2 * H, m2 + load(work, x + 2 * WIDTH))
            if t + 3 < L:
                store(out, row + t * H + 3 * H, m3 + load(work, x + 3 * WIDTH))


# ------------------------------------------------------------------------------------------------------------ backwards


@jit
def adjoint(buf, half, grad, before, row, channel, neuron, tau, u_r, sums, at, want, L, H, until):
    """The gradient at the currents of one sample from that at its spikes; returns whether it is finite.

    ``neuron``: kind, through time, and the surrogate gradient's kind, sharp and height. Where ``want``, adds the
    gradients of tau and u_r of these channels at ``at`` of ``sums (2, parts, H)``.
    """
    kind, through_time, shape, sharp, height = neuron
    one, zero = splat(buf.dtype.type(1)), splat(buf.dtype.type(0))
    decay, reset, soft, place = load(tau, channel), load(u_r, channel), kind == SOFT, half * WIDTH
    carry, seen, by_tau, by_reset = zero, zero, zero, zero
    for i in range(L):
        t = L - 1 - i
        if kind == CURRENT:
            g = load(grad, row + t * H)
        else:
            u = load(before, row + t * H)
            g = load(grad, row + t * H) * psi(u - one, shape, sharp, height)
            if through_time:
                fired = at_least(u, one)
                if want:
                    by_reset = by_reset + select(fired, carry, zero)
                g = g + (carry if soft else select(fired, zero, carry))
                carry = decay * g
            if want and t > 0:
                u = load(before, row + t * H - H)
                by_tau = fma(g, select(at_least(u, one), u - one if soft else reset, u), by_tau)
        seen = fma(g, zero, seen)
        store(buf, t * STEP + place, g)
    if want:
        other = at + sums.size // 2
        store(sums, at, load(sums, at) + by_tau)
        store(sums, other, load(sums, other) + by_reset)
    for t in range(L, until):
        store(buf, t * STEP + place, zero)
    return total(seen) == 0
