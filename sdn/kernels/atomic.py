# ruff: noqa: ANN201
"""Atomic numbers in numba code, by which threads in compiled loops agree; ``array`` holds int64 and is flat.

All are sequentially consistent. What was written before ``publish`` is seen by whoever has read what it published.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_ORDER, _ALIGN = "seq_cst", 8


def _at(context, builder, kind: types.Type, array, index):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@intrinsic
def observe(typing, array, index):
    """``array[index]``."""

    def codegen(context, builder, signature, values):
        place = _at(context, builder, signature.args[0], *values)
        return builder.load_atomic(place, _ORDER, _ALIGN, typ=ir.IntType(64))

    return types.int64(array, types.intp), codegen


@intrinsic
def publish(typing, array, index, value):
    """``array[index] = value``."""

    def codegen(context, builder, signature, values):
        place = _at(context, builder, signature.args[0], *values[:2])
        builder.store_atomic(values[2], place, _ORDER, _ALIGN)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def exchange(typing, array, index, old, new):
    """Make ``array[index]`` the value ``new`` if it is ``old``; says whether it was."""

    def codegen(context, builder, signature, values):
        place = _at(context, builder, signature.args[0], *values[:2])
        return builder.extract_value(builder.cmpxchg(place, values[2], values[3], _ORDER, _ORDER), 1)

    return types.boolean(array, types.intp, types.int64, types.int64), codegen


@intrinsic
def fence(typing):
    """No read or write moves across this."""

    def codegen(context, builder, signature, values):
        builder.fence(_ORDER)
        return context.get_dummy_value()

    return types.void(), codegen
