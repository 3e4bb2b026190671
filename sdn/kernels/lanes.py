"""The exact neuron, compiled with numba: 64 neurons abreast, in tiles of 128 steps.

One neuron is a chain of multiply, add, compare, select: some 12 cycles of latency a step, whatever the vector width.
So 64 of them advance together in vector registers, and because time is contiguous in memory every tile is transposed
on its way in and out, 8 x 8 values at a time in registers. That transpose is the one thing numba cannot express;
:func:`_transpose` writes its shuffles. No floating point flag is relaxed: every value equals the naive recurrence's.

A *lane* is one row, or one stretch of a row: ``start[j]`` says where its next step lies in the flattened tensor and
``work`` holds its state. Lanes share nothing else, so they may come from anywhere. Unused lanes up to a multiple of 8
repeat the last one in use, which writes the same values twice.

``work`` is one flat array so that the compiler can tell its parts apart: vectors of a number a lane (U ... NEXT), then
two tiles (step, lane). Compiled code is cached by the age of this file, so what it depends on stands here and nowhere
else.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

LANES = 64
BLOCK = 128
U, TAU, RESET, V_TH, CARRY, SUM_TAU, SUM_V, SUM_R, NEXT = (i * LANES for i in range(9))
TILE = 9 * LANES
GRAD = TILE + BLOCK * LANES
SIZE = GRAD + BLOCK * LANES
EDGE = 8


def jit(function=None, **options):  # noqa: ANN201
    """``numba.njit`` without the GIL, cached on disk where some folder can be written."""
    if function is None:
        return lambda inner: jit(inner, **options)
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **options}
    if function.__name__.startswith("_"):  # called by compiled code alone
        options["no_cpython_wrapper"] = True
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache folder may we write
        return njit(**options)(function)


@intrinsic
def _apart(typing):
    """Keep the function that calls this out of its callers: inlined, its loops are optimised again in each of them."""

    def codegen(context, builder, signature, values):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


# ---------------------------------------------------------------------------------------------------- tiles in and out


def _transpose(builder: ir.IRBuilder, rows: list) -> list:
    """Transpose 8 vectors of 8 by swapping blocks of 1, 2 and 4 across the diagonal."""
    n, half = len(rows), 1
    mask = ir.VectorType(ir.IntType(32), n)
    while half < n:
        low = ir.Constant(mask, [n + k - half if k & half else k for k in range(n)])
        high = ir.Constant(mask, [n + k if k & half else k + half for k in range(n)])
        for i in range(n):
            if not i & half:
                a, b = rows[i], rows[i + half]
                rows[i], rows[i + half] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        half *= 2
    return rows


def _mover(to_tile: bool):
    """Code that moves 8 steps of 8 lanes between ``flat`` and the tile whose corner is ``work[corner]``."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        work, flat, start = (context.make_array(kinds[i])(context, builder, values[i]).data for i in (0, 2, 3))
        corner, t, lane = values[1], values[4], values[5]
        vector = ir.VectorType(context.get_data_type(kinds[2].dtype), EDGE)
        align = kinds[2].dtype.bitwidth // 8
        word = context.get_value_type(types.intp)

        def pointer(array, offset):
            return builder.bitcast(builder.gep(array, [offset]), vector.as_pointer())

        in_flat, in_tile = [], []
        for i in range(EDGE):
            begin = builder.load(builder.gep(start, [builder.add(lane, word(i))]))
            in_flat.append(pointer(flat, builder.add(begin, t)))
            in_tile.append(pointer(work, builder.add(corner, word(i * LANES))))
        source, target = (in_flat, in_tile) if to_tile else (in_tile, in_flat)
        rows = [builder.load(p, align=align, typ=vector) for p in source]
        for row, p in zip(_transpose(builder, rows), target, strict=True):
            builder.store(row, p, align=align)
        return context.get_dummy_value()

    return codegen


@intrinsic
def _gather(typing, work, corner, flat, start, t, lane):
    """work[corner + i * LANES + j] = flat[start[lane + j] + t + i] for i, j in 0..7."""
    return types.void(work, types.intp, flat, start, types.intp, types.intp), _mover(True)


@intrinsic
def _scatter(typing, work, corner, flat, start, t, lane):
    """flat[start[lane + j] + t + i] = work[corner + i * LANES + j] for i, j in 0..7."""
    return types.void(work, types.intp, flat, start, types.intp, types.intp), _mover(False)


@jit
def _load(work, tile, flat, start, lanes, steps):
    _apart()
    whole = steps // EDGE * EDGE
    for lane in range(0, lanes, EDGE):
        for t in range(0, whole, EDGE):
            _gather(work, tile + t * LANES + lane, flat, start, t, lane)
    for lane in range(lanes):
        for t in range(whole, steps):
            work[tile + t * LANES + lane] = flat[start[lane] + t]


@jit
def _store(work, tile, flat, start, lanes, steps):
    _apart()
    whole = steps // EDGE * EDGE
    for lane in range(0, lanes, EDGE):
        for t in range(0, whole, EDGE):
            _scatter(work, tile + t * LANES + lane, flat, start, t, lane)
    for lane in range(lanes):
        for t in range(whole, steps):
            flat[start[lane] + t] = work[tile + t * LANES + lane]


@jit
def _divide(work, gradients, steps):
    _apart()
    for t in range(steps):
        row = (GRAD if gradients else TILE) + t * LANES
        for j in range(LANES):
            work[row + j] /= work[V_TH + j]


# ------------------------------------------------------------------------------------------------------ the recurrence


@jit
def _spikes(work, soft, steps):
    """Run the recurrence; the currents in TILE become spikes."""
    _apart()
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
def _potentials(work, soft, steps):
    """Run the recurrence; the currents in TILE become u', the potentials before the spike."""
    _apart()
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
def _adjoint(work, soft, through_time, steps):
    """With u' in TILE, the gradients in GRAD become g, the gradient at u'. Through time, backwards: CARRY is tau g."""
    _apart()
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for i in range(steps):
        t = (steps - 1 - i) & (BLOCK - 1)  # the mask tells the compiler that no index is negative
        row, grad = TILE + t * LANES, GRAD + t * LANES
        if not through_time:
            for j in range(LANES):
                psi = one - abs(work[row + j] - one)
                work[grad + j] *= zero if psi < zero else psi
        elif soft:
            for j in range(LANES):
                psi = one - abs(work[row + j] - one)
                g = work[grad + j] * (zero if psi < zero else psi) + work[CARRY + j]
                work[grad + j] = g
                work[CARRY + j] = work[TAU + j] * g
        else:
            for j in range(LANES):
                before, carry = work[row + j], work[CARRY + j]
                psi = one - abs(before - one)
                g = work[grad + j] * (zero if psi < zero else psi) + (zero if before >= one else carry)
                work[grad + j] = g
                work[CARRY + j] = work[TAU + j] * g


@jit
def _sum(work, soft, steps):
    """Add g u and g x to SUM_TAU and SUM_V. U: the potential before the block."""
    _apart()
    one = work.dtype.type(1)
    for t in range(steps):
        row, grad = TILE + t * LANES, GRAD + t * LANES
        for j in range(LANES):
            before, g, u, reset = work[row + j], work[grad + j], work[U + j], work[RESET + j]
            work[SUM_TAU + j] += g * u
            work[SUM_V + j] += g * (before - work[TAU + j] * u)
            after = before - one if soft else reset
            work[U + j] = after if before >= one else before


@jit
def _sum_reset(work, steps):
    """Add to SUM_R what reaches the resets: tau g of the step after each spike. NEXT: that of the block's last step."""
    _apart()
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for t in range(steps - 1):
        row, grad = TILE + t * LANES, GRAD + t * LANES
        for j in range(LANES):
            g = work[grad + LANES + j]
            work[SUM_R + j] += work[TAU + j] * g if work[row + j] >= one else zero
    for j in range(LANES):
        after, g = work[NEXT + j], work[GRAD + j]
        work[SUM_R + j] += after if work[TILE + (steps - 1) * LANES + j] >= one else zero
        work[NEXT + j] = work[TAU + j] * g


# ------------------------------------------------------------------------------------------------------ whole tensors


@jit
def _workspace(like):
    """State and tiles of 64 lanes, zeroed, and where each lane stands."""
    _apart()
    return np.zeros(SIZE, like.dtype), np.zeros(LANES, np.int64)


@jit
def _aim(work, j, channel, tau, v_th, u_r):
    """Make lane ``j`` a neuron of ``channel``. An empty ``v_th`` means that nothing is divided."""
    work[TAU + j], work[RESET + j] = tau[channel], u_r[channel]
    if v_th.size:
        work[V_TH + j] = v_th[channel]


@jit
def _run_block(work, current, s, start, lanes, scaled, soft, steps):
    """Spikes of one block, and on to the next."""
    _apart()
    _load(work, TILE, current, start, lanes, steps)
    if scaled:
        _divide(work, False, steps)
    _spikes(work, soft, steps)
    _store(work, TILE, s, start, lanes, steps)
    for j in range(lanes):
        start[j] += steps


@jit
def forward(first, last, current, s, seams, u, tau, v_th, u_r, soft, L, begin, end) -> None:
    """Rows ``first`` to ``last``, steps ``begin`` (at a seam) to ``end``, one lane a row.

    ``current``, ``s``: flat. ``seams (R, blocks)`` is written. ``u (R,)``: potential before, then after these steps.
    """
    (work, start), H = _workspace(tau), tau.size
    for row in range(first, last, LANES):
        used = min(LANES, last - row)
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(lanes):
            r = row + min(j, used - 1)
            _aim(work, j, r % H, tau, v_th, u_r)
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
    (work, start), H = _workspace(tau), tau.size
    n = ends.shape[1]
    for lane in range(first, last, LANES):
        used = min(LANES, last - lane)
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(lanes):
            r, c = divmod(lane + min(j, used - 1), n)
            _aim(work, j, r % H, tau, v_th, u_r)
            work[U + j], start[j] = 0, r * L + max(0, c * chunk - 1) * BLOCK
        _load(work, TILE, current, start, lanes, BLOCK)
        if v_th.size:
            _divide(work, False, BLOCK)
        _potentials(work, soft, BLOCK)
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
    (work, start), H = _workspace(tau), tau.size
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
            _aim(work, j, r % H, tau, v_th, u_r)
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


@jit
def backward(
    first, last, current, grad, out, seams, carry, sums, tau, v_th, u_r, soft, through_time, L, begin, span, n
) -> None:
    """Stretches ``first`` to ``last`` of ``span`` steps from ``begin`` on, one lane each; q is q % n of row q // n.

    ``grad`` at the spikes and ``out`` = dI: flat. ``carry (R,)``: tau g of the step after the last stretch; where n is
    1 it receives tau g of the first step. Through time, every other stretch starts one block late without what comes
    after: only for taus whose power of BLOCK is nothing. ``sums (3, R, n)``: as in :mod:`sdn.kernels`, per stretch; or
    empty.
    """
    (work, start), H, scaled = _workspace(tau), tau.size, v_th.size > 0
    blocks, late = (span + BLOCK - 1) // BLOCK, 1 if through_time and n > 1 else 0
    for lane in range(first, last, LANES):
        used = min(LANES, last - lane)
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(CARRY, TILE):
            work[j] = 0
        for j in range(lanes):
            _aim(work, j, (lane + min(j, used - 1)) // n % H, tau, v_th, u_r)
        for k in range(blocks - 1 + late, -1, -1):
            steps = min(BLOCK, span - k * BLOCK) if k < blocks else BLOCK
            for j in range(lanes):
                r, c = divmod(lane + min(j, used - 1), n)
                t = begin + c * span + k * BLOCK
                if c == n - 1 and k == blocks:
                    t -= BLOCK  # nothing to run late into: the carry is known, and set when the stretch begins
                if c == n - 1 and k == blocks - 1:
                    work[CARRY + j] = carry[r]
                work[U + j], start[j] = seams[r, t // BLOCK], r * L + t
            if k == blocks - 1:
                for j in range(LANES):
                    work[NEXT + j] = work[CARRY + j]
            _load(work, TILE, current, start, lanes, steps)
            _load(work, GRAD, grad, start, lanes, steps)
            if scaled:
                _divide(work, False, steps)
            _potentials(work, soft, steps)
            _adjoint(work, soft, through_time, steps)
            if k == blocks:
                continue
            if sums.size:
                for j in range(lanes):
                    r = (lane + min(j, used - 1)) // n
                    work[U + j] = seams[r, (start[j] - r * L) // BLOCK]
                _sum(work, soft, steps)
                if through_time and not soft:
                    _sum_reset(work, steps)
            if scaled:
                _divide(work, True, steps)
            _store(work, GRAD, out, start, lanes, steps)
        for j in range(used):
            r, c = divmod(lane + j, n)
            if n == 1:
                carry[r] = work[CARRY + j]
            if sums.size:
                sums[0, r, c] = work[SUM_TAU + j]
                sums[1, r, c] = -work[SUM_V + j] / work[V_TH + j] if scaled else 0
                sums[2, r, c] = work[SUM_R + j]
