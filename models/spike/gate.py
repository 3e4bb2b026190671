"""The gate of a stream: what may enter a network that remembers.

A single NaN would stay in the state for ever, and a neuron turns it into "no spike" without a word; a state of another
batch size would be broadcast. So a sample and the state beside it are checked before either is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sdn.errors import UserError


def refuse_not_finite(what: str = "a sample") -> UserError:
    """The sentence for NaN and infinity."""
    return UserError(
        f"{what} of this stream is NaN or infinite, and a network that remembers would never lose it again; leave "
        "such samples out, or replace them, for instance by the one before"
    )


def as_array(x: ArrayLike | Tensor) -> NDArray:
    """A sample or block as a numpy array; tensors from any device, half precision widened, which numpy may not know."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
    return np.asarray(x)


def check_sample(x: Tensor, state: Sequence[Any]) -> None:
    """Refuse a sample ``(B, ...)`` that is not finite, or a state that is not one of B rows.

    Raises:
        UserError: one sentence.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if x.ndim and state:
        check_rows(state, x.shape[0])
    capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
    if x.is_floating_point() and not capturing and not x.is_meta and not bool(torch.isfinite(x).all()):
        raise refuse_not_finite()


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
