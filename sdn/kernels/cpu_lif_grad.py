"""The exact neuron backwards, compiled with numba: blocks of 128 steps, recomputed from the seams left forwards."""

from __future__ import annotations

from .cpu_jit import apart, jit
from .cpu_lif import potentials
from .cpu_psi import TRIANGLE, slope, triangle
from .cpu_tile import (
    BLOCK,
    CARRY,
    EDGE,
    GRAD,
    LANES,
    NEXT,
    RESET,
    SUM_R,
    SUM_TAU,
    SUM_V,
    TAU,
    TILE,
    V_TH,
    U,
    aim,
    divide,
    load,
    store,
    workspace,
)


@jit
def _adjoint(work, soft, through_time, steps, kind, sharp, height):
    """With u' in TILE, the gradients in GRAD become g, the gradient at u'. Through time, backwards: CARRY is tau g."""
    apart()
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for i in range(steps):
        t = (steps - 1 - i) & (BLOCK - 1)  # the mask tells the compiler that no index is negative
        row, grad = TILE + t * LANES, GRAD + t * LANES
        if kind != TRIANGLE or not through_time:
            slope(work, grad, row, LANES, kind, sharp, height)
        if through_time and soft:
            for j in range(LANES):
                g = work[grad + j]
                if kind == TRIANGLE:
                    g *= triangle(abs(work[row + j] - one), sharp, height, zero)
                g += work[CARRY + j]
                work[grad + j] = g
                work[CARRY + j] = work[TAU + j] * g
        elif through_time:
            for j in range(LANES):
                before, carry, g = work[row + j], work[CARRY + j], work[grad + j]
                if kind == TRIANGLE:
                    g *= triangle(abs(before - one), sharp, height, zero)
                g += zero if before >= one else carry
                work[grad + j] = g
                work[CARRY + j] = work[TAU + j] * g


@jit
def _sum(work, soft, steps):
    """Add g u and g x to SUM_TAU and SUM_V. U: the potential before the block."""
    apart()
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
    apart()
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


@jit
def backward(
    first,
    last,
    current,
    grad,
    out,
    seams,
    carry,
    sums,
    tau,
    v_th,
    u_r,
    soft,
    through_time,
    L,
    begin,
    span,
    n,
    kind,
    sharp,
    height,
) -> None:
    """Stretches ``first`` to ``last`` of ``span`` steps from ``begin`` on, one lane each; q is q % n of row q // n.

    ``grad`` at the spikes and ``out`` = dI: flat. ``carry (R,)``: tau g of the step after the last stretch; where n is
    1 it receives tau g of the first step. Through time, every other stretch starts one block late without what comes
    after: only for taus whose power of BLOCK is nothing. ``sums (3, R, n)``: as in :mod:`sdn.kernels`, per stretch; or
    empty. ``kind``, ``sharp``, ``height``: the surrogate gradient.
    """
    (work, start), H, scaled = workspace(tau), tau.size, v_th.size > 0
    blocks, late = (span + BLOCK - 1) // BLOCK, 1 if through_time and n > 1 else 0
    for lane in range(first, last, LANES):
        used = min(LANES, last - lane)
        lanes = (used + EDGE - 1) // EDGE * EDGE
        for j in range(CARRY, TILE):
            work[j] = 0
        for j in range(lanes):
            aim(work, j, (lane + min(j, used - 1)) // n % H, tau, v_th, u_r)
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
            load(work, TILE, current, start, lanes, steps)
            load(work, GRAD, grad, start, lanes, steps)
            if scaled:
                divide(work, False, steps)
            potentials(work, soft, steps)
            _adjoint(work, soft, through_time, steps, kind, sharp, height)
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
                divide(work, True, steps)
            store(work, GRAD, out, start, lanes, steps)
        for j in range(used):
            r, c = divmod(lane + j, n)
            if n == 1:
                carry[r] = work[CARRY + j]
            if sums.size:
                sums[0, r, c] = work[SUM_TAU + j]
                sums[1, r, c] = -work[SUM_V + j] / work[V_TH + j] if scaled else 0
                sums[2, r, c] = work[SUM_R + j]
