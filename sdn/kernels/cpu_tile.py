"""Tiles of the CPU's exact neuron: 128 steps of 64 lanes, and the way of a tile from and to rows of memory.

One neuron is a chain of multiply, add, compare, select: some 12 cycles of latency a step, whatever the vector width.
So 64 of them advance together in vector registers, and because time is contiguous in memory every tile is transposed
on its way in and out, 8 x 8 values at a time in registers. That transpose is the one thing numba cannot express;
:func:`_transpose` writes its shuffles.

A *lane* is one row, or one stretch of a row: ``start[j]`` says where its next step lies in the flattened tensor and
``work`` holds its state. Lanes share nothing else, so they may come from anywhere. Unused lanes up to a multiple of 8
repeat the last one in use, which writes the same values twice.

``work`` is one flat array so that the compiler can tell its parts apart: vectors of a number a lane (U ... NEXT), then
two tiles (step, lane).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .cpu_jit import apart, jit

LANES = 64
BLOCK = 128
U, TAU, RESET, V_TH, CARRY, SUM_TAU, SUM_V, SUM_R, NEXT = (i * LANES for i in range(9))
TILE = 9 * LANES
GRAD = TILE + BLOCK * LANES
SIZE = GRAD + BLOCK * LANES
EDGE = 8


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
def load(work, tile, flat, start, lanes, steps) -> None:
    apart()
    whole = steps // EDGE * EDGE
    for lane in range(0, lanes, EDGE):
        for t in range(0, whole, EDGE):
            _gather(work, tile + t * LANES + lane, flat, start, t, lane)
    for lane in range(lanes):
        for t in range(whole, steps):
            work[tile + t * LANES + lane] = flat[start[lane] + t]


@jit
def store(work, tile, flat, start, lanes, steps) -> None:
    apart()
    whole = steps // EDGE * EDGE
    for lane in range(0, lanes, EDGE):
        for t in range(0, whole, EDGE):
            _scatter(work, tile + t * LANES + lane, flat, start, t, lane)
    for lane in range(lanes):
        for t in range(whole, steps):
            flat[start[lane] + t] = work[tile + t * LANES + lane]


@jit
def divide(work, gradients, steps) -> None:
    apart()
    for t in range(steps):
        row = (GRAD if gradients else TILE) + t * LANES
        for j in range(LANES):
            work[row + j] /= work[V_TH + j]


@jit
def workspace(like):  # noqa: ANN201
    """State and tiles of 64 lanes, zeroed, and where each lane stands."""
    apart()
    return np.zeros(SIZE, like.dtype), np.zeros(LANES, np.int64)


@jit
def aim(work, j, channel, tau, v_th, u_r) -> None:
    """Make lane ``j`` a neuron of ``channel``. An empty ``v_th`` means that nothing is divided."""
    work[TAU + j], work[RESET + j] = tau[channel], u_r[channel]
    if v_th.size:
        work[V_TH + j] = v_th[channel]
