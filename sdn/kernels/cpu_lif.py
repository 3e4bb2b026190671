"""The exact neuron forwards, compiled with numba: one pass, or stretches of time that are guessed and repaired.

No floating point flag is relaxed: every value equals the naive recurrence's.
"""

from __future__ import annotations

import numpy as np

from .cpu_jit import apart, jit
from .cpu_tile import BLOCK, EDGE, LANES, RESET, TAU, TILE, U, aim, divide, load, store, workspace

# ------------------------------------------------------------------------------------------------------ the recurrence


@jit
def _spikes(work, soft, steps):
    """Run the recurrence; the currents in TILE become spikes."""
    apart()
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for t in range(steps):
        row = TILE + t * LANES
        if soft:
            for j in range(LANES):
                before = work[TAU + j] * work[U + j] + work[row + j]
                s = one if before >= one else zero
                work[row + j] = s
                work[U + j] = before - s
        else:
            for j in range(LANES):
                before, reset = work[TAU + j] * work[U + j] + work[row + j], work[RESET + j]
                work[row + j] = one if before >= one else zero
                work[U + j] = reset if before >= one else before


@jit
def potentials(work, soft, steps) -> None:
    """Run the recurrence; the currents in TILE become u', the potentials before the spike."""
    apart()
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for t in range(steps):
        row = TILE + t * LANES
        if soft:
            for j in range(LANES):
                before = work[TAU + j] * work[U + j] + work[row + j]
                work[row + j] = before
                work[U + j] = before - (one if before >= one else zero)
        else:
            for j in range(LANES):
                before, reset = work[TAU + j] * work[U + j] + work[row + j], work[RESET + j]
                work[row + j] = before
                work[U + j] = reset if before >= one else before


@jit
def _run_block(work, current, s, start, lanes, scaled, soft, steps):
    """Spikes of one block, and on to the next."""
    apart()
    load(work, TILE, current, start, lanes, steps)
    if scaled:
        divide(work, False, steps)
    _spikes(work, soft, steps)
    store(work, TILE, s, start, lanes, steps)
    for j in range(lanes):
        start[j] += steps


@jit
def forward(first, last, current, s, seams, u, tau, v_th, u_r, soft, L, begin, end) -> None:
    """Rows ``first`` to ``last``, steps ``begin`` (at a seam) to ``end``, one lane a row.

    ``current``, ``s``: flat. ``seams (R, blocks)`` is written. ``u (R,)``: potential before, then after these steps.
    """
    (work, start), H = workspace(tau), tau.size
    for row in range(first, last, LANES):
        used = min(LANES, last - row)
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(lanes):
            r = row + min(j, used - 1)
            aim(work, j, r % H, tau, v_th, u_r)
            work[U + j], start[j] = u[r], r * L + begin
        for t in range(begin, end, BLOCK):
            for j in range(used):
                seams[row + j, t // BLOCK] = work[U + j]
            _run_block(work, current, s, start, lanes, v_th.size > 0, soft, min(BLOCK, end - t))
        for j in range(used):
            u[row + j] = work[U + j]


@jit
def speculate(first, last, current, s, seams, u, ends, tau, v_th, u_r, soft, L, chunk) -> None:
    """Stretches ``first`` to ``last`` of ``chunk`` blocks, one lane each; number q is stretch q % n of row q // n.

    Row r's first stretch starts from ``u[r]``, every other from zero one block early. ``ends (R, n)`` receives the
    potentials after each stretch; a stretch is right if its own ``seams`` entry equals the end before it.
    """
    (work, start), H = workspace(tau), tau.size
    n = ends.shape[1]
    for lane in range(first, last, LANES):
        used = min(LANES, last - lane)
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(lanes):
            r, c = divmod(lane + min(j, used - 1), n)
            aim(work, j, r % H, tau, v_th, u_r)
            work[U + j], start[j] = 0, r * L + max(0, c * chunk - 1) * BLOCK
        load(work, TILE, current, start, lanes, BLOCK)
        if v_th.size:
            divide(work, False, BLOCK)
        potentials(work, soft, BLOCK)
        for j in range(lanes):
            r, c = divmod(lane + min(j, used - 1), n)
            start[j] = r * L + c * chunk * BLOCK
            if c == 0:
                work[U + j] = u[r]
        for k in range(chunk):
            for j in range(used):
                r, c = divmod(lane + j, n)
                seams[r, c * chunk + k] = work[U + j]
            _run_block(work, current, s, start, lanes, v_th.size > 0, soft, BLOCK)
        for j in range(used):
            r, c = divmod(lane + j, n)
            ends[r, c] = work[U + j]


@jit
def _same(a, b):
    return a == b or (a != a and b != b)


@jit
def _next_wrong(seams, ends, r, c, chunk):
    """The first stretch of row ``r`` from ``c`` on that did not start where the one before it ended; n if none."""
    while c < ends.shape[1] and _same(seams[r, c * chunk], ends[r, c - 1]):
        c += 1
    return c


@jit
def repair(first, last, current, s, seams, u, ends, tau, v_th, u_r, soft, L, chunk) -> int:
    """Run wrong stretches of rows ``first`` to ``last`` again, from the potential reached until they meet what stands.

    One lane a row, so that whatever the input every step is computed at most twice. ``u`` receives the ends.
    Returns the number of blocks that were run again.
    """
    (work, start), H = workspace(tau), tau.size
    n = ends.shape[1]
    row, block = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    used, waiting, total = 0, first, 0
    while True:
        while used < LANES and waiting < last:
            c = _next_wrong(seams, ends, waiting, 1, chunk)
            if c < n:
                row[used], block[used] = waiting, c * chunk
                work[U + used] = ends[waiting, c - 1]
                used += 1
            waiting += 1
        if used == 0:
            break
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(lanes):
            source = min(j, used - 1)
            r = row[source]
            aim(work, j, r % H, tau, v_th, u_r)
            work[U + j], start[j] = work[U + source], r * L + block[source] * BLOCK
            seams[r, block[source]] = work[U + j]
        _run_block(work, current, s, start, lanes, v_th.size > 0, soft, BLOCK)
        total += used
        kept = 0
        for j in range(used):
            r, k, reached = row[j], block[j] + 1, work[U + j]
            c = (k + chunk - 1) // chunk  # the stretch that starts at block k or after it
            if k == c * chunk:
                ends[r, c - 1] = reached
            elif not _same(reached, seams[r, k]):
                c = 0  # goes on
            if c:
                c = _next_wrong(seams, ends, r, c, chunk)
                if c == n:
                    continue
                k, reached = c * chunk, ends[r, c - 1]
            row[kept], block[kept], work[U + kept] = r, k, reached
            kept += 1
        used = kept
    for r in range(first, last):
        u[r] = ends[r, n - 1]
    return total
