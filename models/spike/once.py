"""Hand-written gradients cannot be differentiated again, and must say so instead of taking what they saved for fixed.

``torch.autograd.function.once_differentiable`` refuses only where the incoming gradient depends on something; where the
loss is linear it does not, and the second derivative through saved tensors would be lost in silence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def witness(x: Tensor) -> Tensor | None:
    """A tensor without elements that depends on x: an extra input for a function that does not save x itself."""
    return x.narrow(0, 0, 0).clone() if x.requires_grad and torch.is_grad_enabled() else None


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Function.backward``: a second derivative raises RuntimeError if any saved tensor or gradient needs one."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> Any:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        behind = [x for x in (*grads, *ctx.saved_tensors) if isinstance(x, Tensor) and x.requires_grad]
        at = [i for i, x in enumerate(found) if x is not None]
        marked = dict(zip(at, _Once.apply(len(at), *(found[i] for i in at), *behind), strict=True)) if behind else {}
        return tuple(marked.get(i, x) for i, x in enumerate(found))

    return wrapped


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            "the gradient of a spiking layer cannot be differentiated again: its backward pass is written by hand; "
            "torch.func.jvp gives directional derivatives by the plain compositions"
        )
