"""The gate of a stream: what may enter a network that remembers.

A single NaN would stay in the state for ever, and a neuron turns it into "no spike" without a word; a state of another
batch size would be broadcast. So a sample and the state beside it are checked before either is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sdn.errors import UserError
from sdn.ops import is_transformed

_STEPS = {3: "B, L", 2: "B"}
"""Axes before the channels, of whole sequences and of a sample of a stream."""


def refuse_not_finite(what: str = "a sample") -> UserError:
    """The sentence for NaN and infinity."""
    return UserError(
        f"{what} of this stream is NaN or infinite, and a network that remembers would never lose it again; leave "
        "such samples out, or replace them, for instance by the one before"
    )


def as_array(x: ArrayLike | Tensor) -> NDArray:
    """A sample or block as a numpy array; tensors from any device, half precision widened, which numpy may not know.

    Raises:
        UserError: it holds no real numbers.
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise UserError(f"a stream takes real numbers, not {array.dtype}")
    return array


def finite_array(x: NDArray, dtype: np.dtype, finite: Callable[[NDArray], bool]) -> NDArray:
    """``x`` in C order and of the type an engine computes in; ``finite`` is the compiled question.

    Raises:
        UserError: NaN or infinity, in ``x`` or where ``dtype`` is too narrow for it.
    """
    with np.errstate(over="ignore"):  # it becomes infinite, which is refused
        array = np.ascontiguousarray(x, dtype)
    if not finite(array.reshape(-1)):
        raise refuse_not_finite()
    return array


def check_sample(x: Tensor, state: Sequence[Any]) -> None:
    """Refuse a sample ``(B, ...)`` that is not finite, or a state that is not one of B rows.

    Raises:
        UserError: one sentence.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if not isinstance(state, (list, tuple)):
        raise UserError(f"a stream goes on from a state, not from {state!r}; start with initial_state({len(x)})")
    if x.ndim and state:
        check_rows(state, x.shape[0])
    capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
    if x.is_floating_point() and not capturing and not x.is_meta and not bool(torch.isfinite(x).all()):
        raise refuse_not_finite()


def check_floats(x: Tensor, ndim: int, width: int) -> None:
    """Refuse what a backbone would not read: anything but floats ``(B, L, width)``, or of a stream ``(B, width)``.

    Raises:
        UserError: what it reads, and what was given.
    """
    if not isinstance(x, Tensor) or x.ndim != ndim or x.shape[-1] != width or not x.is_floating_point():
        given = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"this model reads floats ({_STEPS[ndim]}, {width}), not {given}")


def check_input(encoder: nn.Module, x: Tensor, ndim: int) -> None:
    """Refuse what an encoder of numbers or of token ids would not read: another shape, width or type, unknown ids.

    Args:
        x: ``(B, L, d_input)`` numbers or ids ``(B, L)``; samples of a stream have no L.
        ndim: dimensions of numbers.

    Raises:
        UserError: what it reads, and what was given.
    """
    if not isinstance(x, Tensor):
        raise UserError(f"a network reads tensors, not {type(x).__name__}; torch.as_tensor makes one")
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    steps = _STEPS[ndim]
    if isinstance(encoder, nn.Linear):
        d, kind = encoder.in_features, encoder.weight.dtype
        cast = torch.is_autocast_enabled(x.device.type) if x.device.type != "meta" else True
        fits = x.dtype == kind or (cast and x.is_floating_point())
        if x.ndim != ndim or x.shape[-1] != d or not fits:
            raise UserError(f"this network reads numbers ({steps}, {d}) of {kind}, not {tuple(x.shape)} of {x.dtype}")
    elif isinstance(encoder, nn.Embedding):
        if x.ndim != ndim - 1 or x.dtype not in (torch.int64, torch.int32):
            raise UserError(f"this network reads token ids ({steps}) of int64, not {tuple(x.shape)} of {x.dtype}")
        if x.device.type == "cpu" and x.numel() and not is_transformed(x):
            low, high = (int(bound) for bound in torch.aminmax(x))
            if low < 0 or high >= encoder.num_embeddings:
                raise UserError(f"token ids lie in 0 .. {encoder.num_embeddings - 1}, not in {low} .. {high}")


def check_rows(state: Sequence[Any], batch: int) -> None:
    """Refuse a state of another number of rows than ``batch``, whatever tensors it is made of."""
    for layer in state:
        for tensor in _tensors(layer):
            if tensor.shape[:1] != (batch,):
                raise UserError(
                    f"the state is of {tensor.shape[0] if tensor.ndim else 'no'} streams and the sample of {batch}; "
                    f"make one with initial_state({batch})"
                )


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [tensor for part in tree for tensor in _tensors(part)] if isinstance(tree, (tuple, list)) else []
