# ruff: noqa: ANN201
"""Optimizer steps of the SDN in compiled code: a leader, and helpers whose work it can do itself.

A pass over a batch (:mod:`sdn.fitting.passes`) is cut into pieces of whole rows. Leader and helpers claim pieces; a
piece's sums go to a place of the thread that computed them. Where none is left and a helper's has not come, as when the
machine has given its core to something else, the leader computes it again: so the work goes on at the pace of the
leader at least. The sums are added in the order of the pieces, so their bits depend on neither threads nor timing.

``state``: number of the pass (odd while the leader writes what belongs to it), stop, kind, first and last row, rows a
piece. ``claims[piece]`` and ``finished[thread, piece]`` hold the number of the pass they were made in.
"""

from __future__ import annotations

import numpy as np

from ..kernels.atomic import exchange, fence, observe, publish
from ..kernels.cpu_jit import apart
from .compiled import jit
from .passes import (
    BETA,
    CONSTANT,
    GRADIENT,
    LOSS,
    MOMENTS,
    OUT,
    OUT_BIAS,
    SCALE,
    SCORE,
    SHIFT,
    SLOPE,
    piece,
    places,
    workspace,
)

PASS, STOP, KIND, FIRST, LAST, SHARE = range(6)
# Looks at a number another thread may change, about a nanosecond each: longer than a piece takes, then give up.
_PATIENCE, _IDLE = 20_000, 50_000
_MOMENTUM, _EPS = 0.1, 1e-5  # of batch norm
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8  # of AdamW


@jit
def _take(
    i, me, now, kind, rows, first, last, current, mem, spike, T, d, k, share, claims, finished, sums, weights, work
):  # fmt: skip
    """Thread ``me`` computes piece ``i`` of the pass ``now`` over ``rows[first:last]`` and says so."""
    at, begin = me * claims.size + i, first + i * share
    stop = min(begin + share, last)
    piece(kind, rows, begin, stop, current, mem, spike, T, weights, d, k, work, sums, at * (sums.size // finished.size))
    publish(finished, at, now)


@jit
def help_out(me, rows, current, mem, spike, T, d, k, state, claims, finished, sums, weights):
    """Thread ``me`` takes pieces; returns True at the end, False after some time without work."""
    mine, work, idle, last = weights.copy(), workspace(d, k), 0, -1
    while idle < _IDLE:
        if observe(state, STOP):
            return True
        now = observe(state, PASS)
        idle += 1
        if now == last or now % 2:
            continue
        mine[:] = weights
        kind, first, end, share = state[KIND], state[FIRST], state[LAST], state[SHARE]
        fence()
        if observe(state, PASS) != now:
            continue
        idle, last = 0, now
        pieces = -(-(end - first) // share)
        for i in range(pieces - 1, -1, -1):
            old = observe(claims, i)
            if old < now and observe(state, PASS) == now and exchange(claims, i, old, now):
                _take(
                    i, me, now, kind, rows, first, end, current, mem, spike, T, d, k, share, claims, finished, sums,
                    mine, work,
                )  # fmt: skip
    return False


@jit
def _pass(kind, rows, first, last, current, mem, spike, T, d, k, state, claims, finished, sums, weights, work, total):
    """Run a pass with whoever helps; ``total`` receives its sums."""
    apart()
    threads, wide, share = finished.size // claims.size, sums.size // finished.size, state[SHARE]
    state[KIND], state[FIRST], state[LAST] = kind, first, last
    now = state[PASS] + 1
    publish(state, PASS, now)
    pieces = -(-(last - first) // share)
    for i in range(pieces):
        old = observe(claims, i)
        if old < now and exchange(claims, i, old, now):
            _take(
                i, 0, now, kind, rows, first, last, current, mem, spike, T, d, k, share, claims, finished, sums,
                weights, work,
            )  # fmt: skip
    total[:] = 0
    for i in range(pieces):
        who, looks = -1, 0
        while who < 0 and looks < _PATIENCE:
            for thread in range(threads):
                if observe(finished, thread * claims.size + i) == now:
                    who = thread
                    break
                looks += 1
        if who < 0:
            who = 0
            _take(
                i, 0, now, kind, rows, first, last, current, mem, spike, T, d, k, share, claims, finished, sums,
                weights, work,
            )  # fmt: skip
        base = (who * claims.size + i) * wide
        for j in range(wide):
            total[j] += sums[base + j]
    publish(state, PASS, now + 1)  # odd: what helpers read may change from here on


@jit
def _windows(rows, first, last, current, T, k, lag, mean, cov) -> None:
    """Mean ``(k,)`` and covariance ``(k, k)`` of the windows of all steps of the rows, from their sums over pairs."""
    apart()
    mean[:], cov[:] = 0, 0
    for number in range(first, last):
        row = rows[number]
        base, own = row * T, row * (k + 1)
        s = lag[own + k]
        for j in range(k - 1, -1, -1):
            q = T - k + j
            if q >= 0:
                s -= current[base + q]
            mean[j] += s
        for gap in range(k):
            s = lag[own + gap]
            for j in range(k - 1, gap - 1, -1):
                q = T - k + j
                if q >= gap:
                    s -= np.float64(current[base + q]) * np.float64(current[base + q - gap])
                cov[j - gap, j] += s
    n = (last - first) * T
    for j in range(k):
        mean[j] /= n
    for i in range(k):
        for j in range(i, k):
            cov[i, j] = cov[i, j] / n - mean[i] * mean[j]
            cov[j, i] = cov[i, j]


@jit
def lead(
    rows, starts, rates, decay, current, mem, spike, T, k, d, lag, theta, running, moments, count,
    state, claims, finished, sums, weights, losses,
):  # fmt: skip
    """Steps on the batches ``rows[starts[i] : starts[i + 1]]``; how many were done until a loss was not finite.

    ``theta``: the parameters in the order of ``SDN.parameters()``, ``running``: means and variances of both norms,
    ``moments``: AdamW's two, all float32 and changed in place; ``count``: steps before these; ``d``: padded channels.
    """
    own = running.size // 4  # channels
    size = theta.size
    conv_at, b_at = own, own + own * k
    gamma1, beta1 = b_at + own, b_at + 2 * own
    mix_at = b_at + 3 * own
    p_at = mix_at + own * own
    gamma2, beta2, out_at = p_at + own, p_at + 2 * own, p_at + 3 * own
    conv, conv_bias, mix, mix_bias, back, g2, _, _, _ = places(d, k)
    window = k + k % 2
    work, total = workspace(d, k), np.zeros(sums.size // finished.size)
    mean, cov, slope = np.zeros(k), np.zeros((k, k)), np.zeros(size)
    rstd1, rstd2, folded, turned = np.zeros(own), np.zeros(own), np.zeros((own, k)), np.zeros(k)
    for step in range(starts.size - 1):
        first, last = starts[step], starts[step + 1]
        n = np.float64((last - first) * T)
        unbiased = n / (n - 1)
        # First batch norm, from the data alone; the rest of the layer as it stands.
        _windows(rows, first, last, current, T, k, lag, mean, cov)
        for c in range(own):
            linear = var = 0.0
            for j in range(k):
                folded[c, j] = np.float64(theta[c]) * np.float64(theta[conv_at + c * k + j])
            for i in range(k):
                linear += folded[c, i] * mean[i]
                for j in range(k):
                    var += folded[c, i] * cov[i, j] * folded[c, j]
            var = max(var, 0.0)
            rstd1[c] = 1 / np.sqrt(var + _EPS)
            gain = theta[gamma1 + c] * rstd1[c]
            for j in range(k):
                weights[conv + c * k + j] = gain * folded[c, j]
            weights[conv_bias + c] = theta[beta1 + c] - gain * linear
            running[c] += _MOMENTUM * (linear + theta[b_at + c] - running[c])
            running[own + c] += _MOMENTUM * (var * unbiased - running[own + c])
            for e in range(own):
                weights[mix + c * d + e] = theta[mix_at + c * own + e]
                weights[back + e * d + c] = theta[mix_at + c * own + e]
            weights[mix_bias + c] = theta[p_at + c]
            weights[g2 + c] = theta[gamma2 + c]
            weights[g2 + BETA * d + c] = theta[beta2 + c]
            weights[g2 + OUT * d + c] = theta[out_at + c]
            weights[g2 + SHIFT * d + c] = running[2 * own + c]
        weights[g2 + OUT_BIAS * d] = theta[out_at + own]
        _pass(
            MOMENTS, rows, first, last, current, mem, spike, T, d, k, state, claims, finished, sums, weights, work,
            total,
        )  # fmt: skip
        # Second batch norm.
        for c in range(own):
            off = total[c] / n
            var = max(total[d + c] / n - off * off, 0.0)
            middle = off + weights[g2 + SHIFT * d + c]
            rstd2[c] = 1 / np.sqrt(var + _EPS)
            running[2 * own + c] += _MOMENTUM * (middle - running[2 * own + c])
            running[3 * own + c] += _MOMENTUM * (var * unbiased - running[3 * own + c])
            for e in range(own):
                weights[mix + c * d + e] = rstd2[c] * theta[mix_at + c * own + e]
            weights[mix_bias + c] = rstd2[c] * (theta[p_at + c] - middle)
        _pass(
            LOSS, rows, first, last, current, mem, spike, T, d, k, state, claims, finished, sums, weights, work, total
        )
        losses[step] = total[3 * d + 1] / n
        if not np.isfinite(losses[step]):
            return step + 1
        for c in range(own):
            slope[beta2 + c], slope[gamma2 + c] = total[c] / n, total[d + c] / n
            slope[out_at + c] = total[2 * d + c] / n
            gain = theta[gamma2 + c] * rstd2[c]
            weights[g2 + SCALE * d + c] = gain
            weights[g2 + SLOPE * d + c] = -gain * slope[gamma2 + c]
            weights[g2 + CONSTANT * d + c] = -gain * slope[beta2 + c]
        slope[out_at + own] = total[3 * d] / n
        _pass(
            GRADIENT, rows, first, last, current, mem, spike, T, d, k, state, claims, finished, sums, weights, work,
            total,
        )  # fmt: skip
        for c in range(own):
            for e in range(own):
                slope[mix_at + c * own + e] = total[c * d + e] / n
            at = d * d + c * window
            added = total[d * d + d * window + c]
            gain, along = theta[gamma1 + c] * rstd1[c], 0.0
            for j in range(k):
                turned[j] = total[at + j] - added * mean[j]
                along += turned[j] * folded[c, j]
            slope[beta1 + c], slope[gamma1 + c] = added / n, along * rstd1[c] / n
            slope[c] = 0
            for i in range(k):
                bent = 0.0
                for j in range(k):
                    bent += cov[i, j] * folded[c, j]
                both = gain * (turned[i] - along * rstd1[c] * rstd1[c] * bent) / n
                slope[conv_at + c * k + i] = theta[c] * both
                slope[c] += theta[conv_at + c * k + i] * both
        # The biases before a batch norm (b, p) have no gradient: the norm takes them out again.
        count += 1
        rate, first_bias, second_bias = rates[step], 1 - _BETA1**count, np.sqrt(1 - _BETA2**count)
        for i in range(size):
            m = _BETA1 * moments[i] + (1 - _BETA1) * slope[i]
            v = _BETA2 * moments[size + i] + (1 - _BETA2) * slope[i] * slope[i]
            moments[i], moments[size + i] = m, v
            theta[i] = theta[i] * (1 - rate * decay) - rate / first_bias * m / (np.sqrt(v) / second_bias + _TINY)
    return starts.size - 1


@jit
def score(first, last, rows, share, current, mem, spike, T, d, k, weights, sums) -> None:
    """The figures of pieces ``first`` to ``last`` of the rows, ``sums (pieces, 6)``."""
    work = workspace(d, k)
    found = np.zeros(6)
    for i in range(first, last):
        begin = i * share
        piece(SCORE, rows, begin, min(begin + share, rows.size), current, mem, spike, T, weights, d, k, work, found, 0)
        for j in range(6):
            sums[i * 6 + j] = found[j]
