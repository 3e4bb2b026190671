# ruff: noqa: ANN201
"""Vectors of neighbouring numbers as values in numba code: what its loops cannot be trusted to become.

``load`` takes WIDTH numbers of a flat array to a vector, ``+ - *``, ``fma``, comparisons and ``select`` act on all of
them, ``store`` puts them back. Both float types; no floating point flag is relaxed, and only ``fma`` rounds once.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_jitable, register_model

WIDTH = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a vector: one register of float32."""
LINE = 64
"""Bytes of a line of the cache. A vector that lies across two of them takes twice as long to load, so that loops are
a half slower whose arrays do not begin where a line does."""


class Lanes(types.Type):
    """A vector of WIDTH numbers of ``dtype``; of booleans: a mask."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype}, {WIDTH})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        scalar = ir.IntType(1) if fe_type.dtype == types.boolean else dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(scalar, WIDTH))


def _vector(context, kind: types.Type) -> ir.VectorType:
    return context.get_value_type(Lanes(kind))


def _splat(builder: ir.IRBuilder, scalar, vector: ir.VectorType):
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _call(builder: ir.IRBuilder, name: str, result, *arguments):
    """LLVM's intrinsic ``llvm.name`` on vectors."""
    suffix = f"v{WIDTH}f{64 if isinstance(result.element, ir.DoubleType) else 32}"
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}")
    return builder.call(function, arguments)


def _pointer(context, builder, kind, value, index, vector):
    data = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@register_jitable
def aligned(size: int, dtype: type[np.floating]) -> np.ndarray:
    """``size`` numbers, not initialised, that begin where a line of the cache does; from numpy, which asks the system
    for huge pages. Compiled code may call it too.
    """
    array = np.empty(size + LINE, dtype)
    skip = -array.ctypes.data % LINE // array.itemsize
    return array[skip : skip + size]


@intrinsic
def load(typing, array, index):
    """``array[index : index + WIDTH]`` of a flat array."""

    def codegen(context, builder, signature, values):
        kind = signature.args[0]
        pointer = _pointer(context, builder, kind, values[0], values[1], _vector(context, kind.dtype))
        return builder.load(pointer, align=kind.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), codegen


@intrinsic
def store(typing, array, index, value):
    """``array[index : index + WIDTH] = value``."""

    def codegen(context, builder, signature, values):
        kind = signature.args[0]
        pointer = _pointer(context, builder, kind, values[0], values[1], values[2].type)
        builder.store(values[2], pointer, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, Lanes(array.dtype)), codegen


@intrinsic
def splat(typing, x):
    """A vector of WIDTH times ``x``."""

    def codegen(context, builder, signature, values):
        return _splat(builder, values[0], _vector(context, signature.args[0]))

    return Lanes(x)(x), codegen


@intrinsic
def item(typing, array, index):
    """``array[index]`` for an index at or above 0; numba's own look-up asks every time whether it is below."""

    def codegen(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.load(builder.gep(data, [values[1]]))

    return array.dtype(array, types.intp), codegen


@intrinsic
def broadcast(typing, array, index):
    """A vector of WIDTH times ``array[index]``; the index is not checked for being negative."""

    def codegen(context, builder, signature, values):
        kind = signature.args[0]
        place = builder.gep(context.make_array(kind)(context, builder, values[0]).data, [values[1]])
        return _splat(builder, builder.load(place), _vector(context, kind.dtype))

    return Lanes(array.dtype)(array, types.intp), codegen


@intrinsic
def full(typing, like, x):
    """A vector of the type of ``like``, filled with the number ``x``."""

    def codegen(context, builder, signature, values):
        vector, scalar = values[0].type, values[1]
        if not isinstance(vector.element, ir.DoubleType):
            scalar = builder.fptrunc(scalar, vector.element)
        return _splat(builder, scalar, vector)

    return like(like, types.float64), codegen


def _binary(name: str):
    @intrinsic
    def apply(typing, a, b):
        return a(a, a), lambda context, builder, signature, values: getattr(builder, name)(*values)

    return apply


_add, _sub, _mul, _div = (_binary(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


def _register(symbol, function) -> None:
    @overload(symbol, inline="always")
    def both(a, b):
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return lambda a, b: function(a, b)
        return None


for _symbol, _function in (
    (operator.add, _add),
    (operator.sub, _sub),
    (operator.mul, _mul),
    (operator.truediv, _div),
):
    _register(_symbol, _function)


@intrinsic
def fma(typing, a, b, c):
    """a b + c, rounded once."""
    return a(a, a, a), lambda context, builder, signature, values: _call(builder, "fma", values[0].type, *values)


@intrinsic
def fnma(typing, a, b, c):
    """c - a b, rounded once."""

    def codegen(context, builder, signature, values):
        minus = builder.fsub(ir.Constant(values[0].type, [-0.0] * WIDTH), values[0])
        return _call(builder, "fma", values[0].type, minus, *values[1:])

    return a(a, a, a), codegen


@intrinsic
def sqrt(typing, a):
    """The square root."""
    return a(a), lambda context, builder, signature, values: _call(builder, "sqrt", values[0].type, *values)


@intrinsic
def absolute(typing, a):
    """The absolute value."""
    return a(a), lambda context, builder, signature, values: _call(builder, "fabs", values[0].type, *values)


@intrinsic
def at_least(typing, a, b):
    """The mask a >= b; NaN is not."""

    def codegen(context, builder, signature, values):
        return builder.fcmp_ordered(">=", *values)

    return Lanes(types.boolean)(a, a), codegen


@intrinsic
def above(typing, a, b):
    """The mask a > b; NaN is not."""

    def codegen(context, builder, signature, values):
        return builder.fcmp_ordered(">", *values)

    return Lanes(types.boolean)(a, a), codegen


@intrinsic
def select(typing, mask, a, b):
    """a where the mask is set, else b."""
    return a(mask, a, a), lambda context, builder, signature, values: builder.select(*values)


@intrinsic
def bits(typing, mask):
    """The mask as the lowest WIDTH bits of an integer."""

    def codegen(context, builder, signature, values):
        small = builder.bitcast(values[0], ir.IntType(WIDTH))
        return builder.zext(small, ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def lowest_bit(typing, x):
    """The place of the lowest bit that is set in an integer other than 0."""
    return types.int64(types.int64), lambda context, builder, signature, values: builder.cttz(
        values[0], ir.Constant(ir.IntType(1), 1)
    )


@intrinsic
def total(typing, a):
    """The sum of a vector, in pairs."""

    def codegen(context, builder, signature, values):
        v, half = values[0], WIDTH // 2
        while half:
            order = [(i + half) % WIDTH for i in range(WIDTH)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), order)
            v, half = builder.fadd(v, builder.shuffle_vector(v, v, mask)), half // 2
        return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))

    return a.dtype(a), codegen


_TERMS = {32: 8, 64: 14}


@intrinsic
def exp(typing, a):
    """e^a within 2 units in the last place; a is clamped to where the result is a normal number."""

    def codegen(context, builder, signature, values):
        width = signature.args[0].dtype.bitwidth
        vector, fraction, bias, reach = values[0].type, *((23, 127, 87.0) if width == 32 else (52, 1023, 708.0))

        def constant(x: float):
            return ir.Constant(vector, [x] * WIDTH)

        x = values[0]
        high, low = constant(reach), constant(-reach)
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        n = _call(builder, "rint", vector, builder.fmul(x, constant(1 / math.log(2))))
        # ln 2 in two parts, the first of few digits, so that n times it is exact.
        first, rest = (
            (0.693359375, -2.1219444005469058e-4) if width == 32 else (0.6931471803691238, 1.9082149292705877e-10)
        )
        r = _call(builder, "fma", vector, n, constant(-first), x)
        r = _call(builder, "fma", vector, n, constant(-rest), r)
        y = constant(1 / math.factorial(_TERMS[width] - 1))
        for k in range(_TERMS[width] - 2, -1, -1):
            y = _call(builder, "fma", vector, y, r, constant(1 / math.factorial(k)))
        integer = ir.VectorType(ir.IntType(width), WIDTH)
        power = builder.add(builder.fptosi(n, integer), ir.Constant(integer, [bias] * WIDTH))
        power = builder.bitcast(builder.shl(power, ir.Constant(integer, [fraction] * WIDTH)), vector)
        return builder.fmul(y, power)

    return a(a), codegen
