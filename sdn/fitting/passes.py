"""What an optimizer step of the SDN needs from its data: three passes over the batch, each ending in a few sums.

The network of :mod:`sdn.network`, one layer, with everything linear before a ReLU multiplied out, and its loss::

    a = relu(W' window(x) + b')        the first batch norm acts on a linear map of the data, so its statistics follow
                                       from sums over pairs of inputs, which :func:`lags` takes once for all epochs
    z = (P a + p - mean) / std         mean and std of P a + p over the batch
    h = gamma z + beta + a,  b = relu(h),  m = w . b + w0,  r = m - mem,  loss = mean smooth_l1(r)

- pass MOMENTS: sums of P a + p and its square, about a shift near the mean.
- pass LOSS: with e = clamp(r, -1, 1) and g = e w [h > 0], the loss and the sums of g, g z, e b, e.
- pass GRADIENT: v = gamma / std (g - mean g - z mean(g z)), f = (P^T v + g) [a > 0], the sums of v a^T, f window^T, f.
- pass SCORE: figures of the evaluation; mean and std are the running ones.

A pass is taken in pieces of whole rows. A piece reads data and weights, writes nothing but its sums, and has the same
bits whoever computes it: so pieces can be given to threads, and done twice where a thread does not come back.
Rows are taken STEPS at a time, so that all of a block stays in the cache; channels are padded to a multiple of 4.
"""

from __future__ import annotations

import numpy as np

from ..kernels.cpu_jit import apart
from ..kernels.simd import WIDTH, absolute, at_least, broadcast, fma, full, load, select, store
from .compiled import jit

STEPS = 256
PAIR = 2 * WIDTH
MOMENTS, LOSS, GRADIENT, SCORE = range(4)


@jit
def places(d, k):  # noqa: ANN201
    """Where the parts of the flat ``weights`` begin, and where they end; d: padded channels."""
    conv_bias = d * k
    mix = conv_bias + d
    mix_bias = mix + d * d
    back = mix_bias + d
    gamma = back + d * d
    return 0, conv_bias, mix, mix_bias, back, gamma, gamma + d, gamma + 2 * d, gamma + 9 * d


# Vectors of d numbers that follow one another from `gamma` on.
BETA, OUT, SHIFT, SCALE, SLOPE, CONSTANT, OUT_BIAS = 1, 2, 3, 4, 5, 6, 7


@jit
def n_sums(d, k):  # noqa: ANN201
    """The most sums a pass has; k: window, padded to an even number."""
    return d * d + d * k + d + 8


@jit
def workspace(d, k):  # noqa: ANN201
    """Room for a block of one thread."""
    return np.zeros(k + 4 + STEPS + PAIR + (4 * d + 4) * STEPS + n_sums(d, k + k % 2) * WIDTH, np.float32)


@jit
def _store8(out, at, gap, a0, a1, a2, a3, b0, b1, b2, b3) -> None:
    """Two neighbouring vectors a, b to each of four places ``gap`` numbers apart."""
    store(out, at, a0)
    store(out, at + WIDTH, b0)
    store(out, at + gap, a1)
    store(out, at + gap + WIDTH, b1)
    store(out, at + 2 * gap, a2)
    store(out, at + 2 * gap + WIDTH, b2)
    store(out, at + 3 * gap, a3)
    store(out, at + 3 * gap + WIDTH, b3)


@jit
def _map(out, to, weights, w, bias, n_out, n_in, source, s, stride, steps, rectify) -> None:
    """out[to + c STEPS + t] = weights[bias + c] + sum_i weights[w + c n_in + i] source[s + i stride + t]; or ReLU."""
    apart()
    zero = full(load(source, s), 0.0)
    for t in range(0, steps, PAIR):
        for c in range(0, n_out, 4):
            a0 = broadcast(weights, bias + c)
            a1 = broadcast(weights, bias + c + 1)
            a2 = broadcast(weights, bias + c + 2)
            a3 = broadcast(weights, bias + c + 3)
            b0, b1, b2, b3 = a0, a1, a2, a3
            row = w + c * n_in
            for i in range(n_in):
                p, q = load(source, s + i * stride + t), load(source, s + i * stride + t + WIDTH)
                w0, w1 = broadcast(weights, row + i), broadcast(weights, row + n_in + i)
                w2, w3 = broadcast(weights, row + 2 * n_in + i), broadcast(weights, row + 3 * n_in + i)
                a0, b0 = fma(w0, p, a0), fma(w0, q, b0)
                a1, b1 = fma(w1, p, a1), fma(w1, q, b1)
                a2, b2 = fma(w2, p, a2), fma(w2, q, b2)
                a3, b3 = fma(w3, p, a3), fma(w3, q, b3)
            if rectify:  # NaN stays NaN
                a0, b0 = select(at_least(zero, a0), zero, a0), select(at_least(zero, b0), zero, b0)
                a1, b1 = select(at_least(zero, a1), zero, a1), select(at_least(zero, b1), zero, b1)
                a2, b2 = select(at_least(zero, a2), zero, a2), select(at_least(zero, b2), zero, b2)
                a3, b3 = select(at_least(zero, a3), zero, a3), select(at_least(zero, b3), zero, b3)
            _store8(out, to + c * STEPS + t, STEPS, a0, a1, a2, a3, b0, b1, b2, b3)


@jit
def _outer(work, to, left, n_left, right, stride, n_right, steps) -> None:
    """Vector c n_right + e from ``to`` += sum_t work[left + c STEPS + t] work[right + e stride + t], lane by lane."""
    apart()
    for c in range(0, n_left, 4):
        for e in range(0, n_right, 2):
            at, gap = to + (c * n_right + e) * WIDTH, n_right * WIDTH
            a0, b0 = load(work, at), load(work, at + WIDTH)
            a1, b1 = load(work, at + gap), load(work, at + gap + WIDTH)
            a2, b2 = load(work, at + 2 * gap), load(work, at + 2 * gap + WIDTH)
            a3, b3 = load(work, at + 3 * gap), load(work, at + 3 * gap + WIDTH)
            first, second = right + e * stride, right + (e + 1) * stride
            for t in range(0, steps, WIDTH):
                p, q = load(work, first + t), load(work, second + t)
                g = load(work, left + c * STEPS + t)
                a0, b0 = fma(g, p, a0), fma(g, q, b0)
                g = load(work, left + (c + 1) * STEPS + t)
                a1, b1 = fma(g, p, a1), fma(g, q, b1)
                g = load(work, left + (c + 2) * STEPS + t)
                a2, b2 = fma(g, p, a2), fma(g, q, b2)
                g = load(work, left + (c + 3) * STEPS + t)
                a3, b3 = fma(g, p, a3), fma(g, q, b3)
            _store8(work, at, gap, a0, a1, a2, a3, b0, b1, b2, b3)


@jit
def piece(kind, rows, first, last, current, mem, spike, T, weights, d, k, work, sums, base) -> None:
    """The sums of pass ``kind`` over ``rows[first:last]`` of ``current``, ``mem``, ``spike`` (flat, rows of T steps).

    ``sums[base:]`` receives, in this order and in float64:

    - MOMENTS: of P a + p - shift (d), of its square (d);
    - LOSS: of g (d), g z (d), e b (d), e, the loss;
    - GRADIENT: v a^T (d, d), f window^T (d, k padded), f (d);
    - SCORE: the loss, |error|, error^2, the largest |error|, wrong spikes, true spikes.
    """
    apart()
    conv, conv_bias, mix, mix_bias, back, gamma, _, out, _ = places(d, k)
    beta, shift, scale, slope = gamma + BETA * d, gamma + SHIFT * d, gamma + SCALE * d, gamma + SLOPE * d
    constant, out_bias = gamma + CONSTANT * d, gamma + OUT_BIAS * d
    window = k + k % 2
    x = 0
    a = k + 4 + STEPS + PAIR
    z = a + d * STEPS
    v = z + d * STEPS
    g = v + d * STEPS
    target = g + d * STEPS
    valid, error, loss_at = target + STEPS, target + 2 * STEPS, target + 3 * STEPS
    acc = target + 4 * STEPS
    for i in range(acc, work.size):
        work[i] = 0
    zero, one = full(load(work, acc), 0.0), full(load(work, acc), 1.0)
    half, minus = full(zero, 0.5), full(zero, -1.0)
    score_loss = score_abs = score_square = score_max = 0.0
    wrong = true = 0
    for number in range(first, last):
        row = rows[number] * T
        for i in range(k):
            work[x + i] = 0
        for begin in range(0, T, STEPS):
            steps = min(STEPS, T - begin)
            whole = -(-steps // PAIR) * PAIR
            for t in range(steps):
                work[x + k + t] = current[row + begin + t]
                work[target + t] = mem[row + begin + t]
            if begin == 0 or steps < STEPS:
                for t in range(whole):
                    work[valid + t] = 1 if t < steps else 0
                for t in range(steps, whole):
                    work[x + k + t] = 0
                    work[target + t] = 0
            _map(work, a, weights, conv, conv_bias, d, k, work, x, 1, whole, True)
            _map(work, z, weights, mix, mix_bias, d, d, work, a, STEPS, whole, False)
            if kind == MOMENTS:
                for c in range(d):
                    s, q, middle = zero, zero, broadcast(weights, shift + c)
                    for t in range(0, whole, WIDTH):
                        y = (load(work, z + c * STEPS + t) - middle) * load(work, valid + t)
                        s, q = s + y, fma(y, y, q)
                    at = acc + c * WIDTH
                    store(work, at, load(work, at) + s)
                    store(work, at + d * WIDTH, load(work, at + d * WIDTH) + q)
            else:
                for t in range(0, whole, WIDTH):
                    m = broadcast(weights, out_bias)
                    for c in range(d):
                        h = load(work, a + c * STEPS + t) + broadcast(weights, beta + c)
                        h = fma(broadcast(weights, gamma + c), load(work, z + c * STEPS + t), h)
                        m = fma(broadcast(weights, out + c), select(at_least(zero, h), zero, h), m)
                    r = m - load(work, target + t)
                    size = absolute(r)
                    loss = select(at_least(size, one), size - half, half * r * r)
                    store(work, loss_at + t, loss * load(work, valid + t))
                    if kind == SCORE:
                        store(work, error + t, m)
                    else:
                        r = select(at_least(r, one), one, select(at_least(minus, r), minus, r))
                        store(work, error + t, r * load(work, valid + t))
            if kind == LOSS:
                for c in range(d):
                    s, q, w, o = zero, zero, zero, broadcast(weights, out + c)
                    low, gain = broadcast(weights, beta + c), broadcast(weights, gamma + c)
                    for t in range(0, whole, WIDTH):
                        y, e = load(work, z + c * STEPS + t), load(work, error + t)
                        h = fma(gain, y, load(work, a + c * STEPS + t) + low)
                        off = at_least(zero, h)
                        f = select(off, zero, o * e)
                        s, q, w = s + f, fma(f, y, q), fma(e, select(off, zero, h), w)
                    at = acc + c * WIDTH
                    store(work, at, load(work, at) + s)
                    store(work, at + d * WIDTH, load(work, at + d * WIDTH) + q)
                    store(work, at + 2 * d * WIDTH, load(work, at + 2 * d * WIDTH) + w)
                s, q, at = zero, zero, acc + 3 * d * WIDTH
                for t in range(0, whole, WIDTH):
                    s, q = s + load(work, error + t), q + load(work, loss_at + t)
                store(work, at, load(work, at) + s)
                store(work, at + WIDTH, load(work, at + WIDTH) + q)
            elif kind == GRADIENT:
                for c in range(d):
                    o, low, gain = (
                        broadcast(weights, out + c),
                        broadcast(weights, beta + c),
                        broadcast(weights, gamma + c),
                    )
                    by, minus_z, rest = (
                        broadcast(weights, scale + c),
                        broadcast(weights, slope + c),
                        broadcast(weights, constant + c),
                    )
                    for t in range(0, whole, WIDTH):
                        y = load(work, z + c * STEPS + t)
                        h = fma(gain, y, load(work, a + c * STEPS + t) + low)
                        f = select(at_least(zero, h), zero, o * load(work, error + t))
                        store(work, g + c * STEPS + t, f)
                        store(work, v + c * STEPS + t, fma(by, f, fma(minus_z, y, rest)) * load(work, valid + t))
                # z is read no more: it takes P^T v, whose bias is the vector of zeros behind the weights
                _map(work, z, weights, back, out_bias + d, d, d, work, v, STEPS, whole, False)
                for c in range(d):
                    at = acc + (d * d + d * window + c) * WIDTH
                    s = load(work, at)
                    for t in range(0, whole, WIDTH):
                        here = c * STEPS + t
                        f = load(work, z + here) + load(work, g + here)
                        f = select(at_least(zero, load(work, a + here)), zero, f)
                        store(work, g + here, f)
                        s = s + f
                    store(work, at, s)
                _outer(work, acc, v, d, a, STEPS, d, whole)
                _outer(work, acc + d * d * WIDTH, g, d, x, 1, window, whole)
            elif kind == SCORE:
                for t in range(steps):
                    m, e = work[error + t], np.float64(work[error + t]) - np.float64(work[target + t])
                    score_loss += np.float64(work[loss_at + t])
                    score_abs += abs(e)
                    score_square += e * e
                    score_max = max(score_max, abs(e))
                    fired = spike[row + begin + t] != 0
                    true += fired
                    wrong += (m + work[x + k + t] >= np.float32(1)) != fired
            for i in range(k):
                work[x + i] = work[x + steps + i]
    if kind == SCORE:
        sums[base], sums[base + 1], sums[base + 2] = score_loss, score_abs, score_square
        sums[base + 3], sums[base + 4], sums[base + 5] = score_max, wrong, true
        return
    count = 2 * d if kind == MOMENTS else 3 * d + 2 if kind == LOSS else d * d + d * window + d
    for j in range(count):
        s = 0.0
        for lane in range(WIDTH):
            s += np.float64(work[acc + j * WIDTH + lane])
        sums[base + j] = s


@jit(fastmath={"reassoc", "contract", "nsz"})
def lags(first, last, current, T, k, out) -> None:
    """``out[row (k + 1) + l]``: sum_t x_t x_{t-l}, l < k, and at l = k the sum of x, of rows ``first`` to ``last``."""
    for row in range(first, last):
        base = row * T
        for lag in range(k):
            s = 0.0
            for t in range(lag, T):
                s += np.float64(current[base + t]) * np.float64(current[base + t - lag])
            out[row * (k + 1) + lag] = s
        s = 0.0
        for t in range(T):
            s += np.float64(current[base + t])
        out[row * (k + 1) + k] = s
