"""The neuron operators: one entry point each, which picks the fastest exact implementation for the device.

Registered with PyTorch as ``sdn::lif`` and ``sdn::surrogate``, so that ``torch.compile`` traces through them. Under
autocast they keep the type of their input: the recurrence runs in float32 at least whatever that is, and a spike is
exact in all of them.

Derivatives of ``torch.func`` and forward-mode ones are computed by the naive recurrence, slowly; the fast kernels'
gradients cannot be differentiated again, and say so.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import kernels
from .contract import check_threshold
from .errors import UserError
from .lif import GRADIENTS, Gradient, Reset, check_reset, lif_reference
from .network import ReducedSDN
from .surrogate import TRIANGLE, Surrogate, spike

__all__ = ["lif", "lif_scan", "surrogate"]


def lif(
    current: Tensor,
    tau: float | Tensor,
    v_th: Tensor | None = None,
    u_r: float | Tensor = 0.0,
    reset: Reset = "hard",
    gradient: Gradient = "sltt",
    surrogate: Surrogate = TRIANGLE,
) -> Tensor:
    """Spikes of an exact LIF neuron (:mod:`sdn.lif`) from the potential 0.

    Args:
        current: I, ``(..., H, L)``, of any float type.
        tau, u_r: numbers, or tensors ``(H,)``, ``(1,)`` or ``()``.
        v_th: threshold above 0, a tensor of such a shape; None for 1.
        reset: "hard" to ``u_r`` (counted in thresholds), or "soft" by subtraction.
        gradient: "sltt" elementwise, or "bptt" through time; both also for tau and v_th, "bptt" for ``u_r``.
        surrogate: the surrogate gradient of a spike (:mod:`sdn.surrogate`).

    Returns:
        s in {0, 1}, shape and type of ``current``. For the backward pass 1/128 of its memory is kept beside it.

    Raises:
        UserError: an unknown reset or gradient, a current that is not of a float type, or a threshold not above 0.
    """
    if gradient not in GRADIENTS:
        raise UserError(f"unknown gradient {gradient!r}; choose sltt or bptt")
    dual = _is_differentiated(current, tau, v_th, u_r)
    if kernels.chosen() == "reference" or dual:
        _check(current, reset)
        x = _scaled(current.to(_real(current)) if dual else current, v_th)
        return lif_reference(x, tau, u_r, reset, None, gradient, surrogate)[1].to(current.dtype)
    neuron = _neuron(current, tau, v_th, u_r, reset)
    return _lif(current.contiguous(), *neuron, None, reset == "soft", gradient == "bptt", *surrogate)[0]


@torch.no_grad()
def lif_scan(
    current: Tensor,
    u0: Tensor | None,
    tau: float | Tensor,
    v_th: Tensor | None = None,
    u_r: float | Tensor = 0.0,
    reset: Reset = "hard",
) -> tuple[Tensor, Tensor]:
    """``(s, u)`` without gradient, from the potential ``u0 (..., H)`` (None: zero): arguments as in :func:`lif`.

    ``u (..., H)``, in float32 at least, is the potential after the last step: the ``u0`` of the next call.
    """
    if kernels.chosen() == "reference":
        _check(current, reset)
        return lif_reference(_scaled(current, v_th), tau, u_r, reset, u0)[1:]
    neuron = _neuron(current, tau, v_th, u_r, reset)
    start = None if u0 is None else u0.to(neuron[0].dtype).expand(current.shape[:-1]).contiguous()
    s, u, _ = _lif(current.contiguous(), *neuron, start, reset == "soft", False)
    return s, u


def surrogate(
    current: Tensor, network: ReducedSDN, v_th: Tensor | None = None, surrogate: Surrogate = TRIANGLE
) -> Tensor:
    """Spikes of the surrogate: mem from ``network`` at x = I / v_th, s = H(mem + x - 1), mem a constant to gradients.

    ``current (..., H, L)`` of any float type, ``v_th`` and ``surrogate`` as in :func:`lif`. A network of one or two
    layers is one fused pass; deeper ones run layer by layer, and a warning says so once.
    """
    _check(current, "hard")
    fused = network.n_layers <= 2
    if not fused:
        _say_deep()
    dual = _is_differentiated(current, v_th)
    if not fused or dual or kernels.chosen() == "reference":
        x = _scaled(current.to(_real(current)) if dual else current, v_th)
        with torch.no_grad():
            mem = network(x.detach())
        return spike(mem + x - 1, surrogate).to(current.dtype)
    dtype = _real(current)
    weights = network.flat().to(dtype)
    threshold = None if v_th is None else _per_channel(v_th, current)
    keep = torch.is_grad_enabled() and (current.requires_grad or (threshold is not None and threshold.requires_grad))
    return _surrogate(current.contiguous(), threshold, weights, network.sizes, keep, *surrogate)[0]


@functools.cache
def _say_deep() -> None:
    warnings.warn("an SDN of more than two layers runs layer by layer: it has no fast kernel", stacklevel=3)


# ------------------------------------------------------------------------------------------------------------ arguments


def is_dual(*values: object) -> bool:
    """Whether one of them is a tensor with a forward-mode tangent, of which a fast kernel would know nothing."""
    if torch.compiler.is_compiling():
        return False
    return any(isinstance(v, Tensor) and forward_ad.unpack_dual(v).tangent is not None for v in values)


def is_transformed(*values: object) -> bool:
    """Whether a function of torch.func is at work, or a forward-mode tangent: only a plain composition will do."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or is_dual(*values)


def _is_differentiated(*values: object) -> bool:
    """Whether a derivative is taken that the registered operators have no rule for: a forward-mode tangent, or one of
    torch.func (grad, jacrev, ...). A plain vmap runs them sample by sample."""
    if torch.compiler.is_compiling():
        return False
    kinds = torch._C._functorch.TransformType
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() in (kinds.Grad, kinds.Jvp) for level in stack) or is_dual(*values)


def _scaled(current: Tensor, v_th: Tensor | None) -> Tensor:
    return current if v_th is None else current / check_threshold(v_th).unsqueeze(-1)


def _real(current: Tensor) -> torch.dtype:
    return torch.float64 if current.dtype == torch.float64 else torch.float32


def _check(current: Tensor, reset: str) -> None:
    check_reset(reset)
    if not current.is_floating_point() or current.ndim < 2:
        raise UserError(
            f"a neuron takes currents (..., channels, time) of a float type, not {current.dtype} {tuple(current.shape)}"
        )


def _per_channel(value: float | Tensor, current: Tensor) -> Tensor:
    """``value`` as a vector ``(H,)`` of the type that potentials have."""
    H = current.shape[-2]
    if not isinstance(value, Tensor):
        return torch.full((H,), value, dtype=_real(current), device=current.device)
    if value.ndim > 1 or value.numel() not in (1, H):
        raise UserError(f"a value per channel has shape ({H},) for {H} channels, not {tuple(value.shape)}")
    return value.to(current.device, _real(current)).expand(H).contiguous()


def _neuron(
    current: Tensor, tau: float | Tensor, v_th: Tensor | None, u_r: float | Tensor, reset: str
) -> tuple[Tensor, Tensor | None, Tensor]:
    _check(current, reset)
    threshold = None if v_th is None else _per_channel(v_th, current)
    return _per_channel(tau, current), threshold, _per_channel(u_r, current)


def _rows(x: Tensor) -> Tensor:
    return x.view(math.prod(x.shape[:-1]), x.shape[-1])


def _seams(current: Tensor) -> int:
    return (current.shape[-1] + kernels.SEAM - 1) // kernels.SEAM


def _over_batch(sums: Tensor, H: int) -> Tensor:
    """Sums per row ``(..., B * H) -> (..., H)``."""
    return sums.unflatten(-1, (-1, H)).sum(-2) if H and sums.shape[-1] else sums.new_zeros(*sums.shape[:-1], H)


def _operator(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the operator of that schema, on every device.

    Not by ``torch.library.custom_op``, whose first call loads the whole compiler: a second and a half.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = schema.partition("(")[0]
        torch.library.define(name, schema[len(name) :], tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(name, "default", function)
        return getattr(torch.ops.sdn, name.partition("::")[2]).default

    return register


def _refuse_twice(ctx, *_) -> None:
    raise RuntimeError(
        "the gradient of a fast neuron cannot be differentiated again; run it within sdn.kernels.use('reference')"
    )


# ---------------------------------------------------------------------------------------------------- the exact neuron


@_operator(
    "sdn::lif("
    "Tensor current, Tensor tau, Tensor? v_th, Tensor u_r, Tensor? u0, bool soft, bool through_time,"
    " str surrogate='triangle', float width=1.0) -> (Tensor, Tensor, Tensor)"
)
def _lif(current, tau, v_th, u_r, u0, soft, through_time, surrogate="triangle", width=1.0):
    if v_th is not None:
        check_threshold(v_th)
    start = None if u0 is None else u0.reshape(-1)
    s, u, seams = kernels.pick(current.device.type).lif_forward(_rows(current), tau, v_th, u_r, soft, start)
    return s.view(current.shape), u.view(current.shape[:-1]), seams


@torch.library.register_fake("sdn::lif")
def _(current, tau, v_th, u_r, u0, soft, through_time, surrogate="triangle", width=1.0):
    rows = math.prod(current.shape[:-1])
    u = tau.new_empty(current.shape[:-1])
    return current.new_empty(current.shape), u, tau.new_empty(rows, _seams(current))


@_operator(
    "sdn::lif_backward("
    "Tensor grad, Tensor current, Tensor seams, Tensor tau, Tensor? v_th, Tensor u_r, bool soft,"
    " bool through_time, bool want_sums, str surrogate, float width) -> (Tensor, Tensor)"
)
def _lif_backward(grad, current, seams, tau, v_th, u_r, soft, through_time, want_sums, surrogate, width):
    d_current, sums = kernels.pick(current.device.type).lif_backward(
        *(_rows(grad), _rows(current), seams, tau, v_th, u_r, soft, through_time, want_sums),
        surrogate=Surrogate(surrogate, width),
    )
    return d_current.view(current.shape), sums


@torch.library.register_fake("sdn::lif_backward")
def _(grad, current, seams, tau, v_th, u_r, soft, through_time, want_sums, surrogate, width):
    return current.new_empty(current.shape), tau.new_empty(3, seams.shape[0] if want_sums else 0)


def _lif_save(ctx, inputs, output) -> None:
    current, tau, v_th, u_r, _, ctx.soft, ctx.through_time, *ctx.surrogate = inputs
    ctx.save_for_backward(current, output[2], tau, v_th, u_r)
    ctx.mark_non_differentiable(output[1], output[2])


def _lif_gradients(ctx, grad, *_):
    current, seams, tau, v_th, u_r = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    d_current, sums = _lif_backward(
        grad.contiguous(), current, seams, tau, v_th, u_r, ctx.soft, ctx.through_time, any(wanted[1:4]), *ctx.surrogate
    )
    d_tau, d_v_th, d_u_r = _over_batch(sums, tau.numel()) if any(wanted[1:4]) else (None, None, None)
    return d_current, d_tau, None if v_th is None else d_v_th, d_u_r, *(None,) * 5


torch.library.register_autograd("sdn::lif", _lif_gradients, setup_context=_lif_save)
torch.library.register_autograd("sdn::lif_backward", _refuse_twice)

# ------------------------------------------------------------------------------------------------------- the surrogate


@_operator(
    "sdn::surrogate("
    "Tensor current, Tensor? v_th, Tensor weights, int[] sizes, bool keep_mem, str surrogate='triangle',"
    " float width=1.0) -> (Tensor, Tensor)"
)
def _surrogate(current, v_th, weights, sizes, keep_mem, surrogate="triangle", width=1.0):
    if v_th is not None:
        check_threshold(v_th)
    s, mem = kernels.pick(current.device.type).sdn_forward(_rows(current), v_th, weights, sizes, keep_mem)
    return s.view(current.shape), mem


@torch.library.register_fake("sdn::surrogate")
def _(current, v_th, weights, sizes, keep_mem, surrogate="triangle", width=1.0):
    rows = math.prod(current.shape[:-1]) if keep_mem else 0
    return current.new_empty(current.shape), weights.new_empty(rows, current.shape[-1])


@_operator(
    "sdn::surrogate_backward("
    "Tensor grad, Tensor current, Tensor mem, Tensor? v_th, bool want_sums, str surrogate, float width)"
    " -> (Tensor, Tensor)"
)
def _surrogate_backward(grad, current, mem, v_th, want_sums, surrogate, width):
    kernel = kernels.pick(current.device.type).sdn_backward
    d_current, sums = kernel(_rows(grad), _rows(current), mem, v_th, want_sums, surrogate=Surrogate(surrogate, width))
    return d_current.view(current.shape), sums


@torch.library.register_fake("sdn::surrogate_backward")
def _(grad, current, mem, v_th, want_sums, surrogate, width):
    return current.new_empty(current.shape), mem.new_empty(mem.shape[0] if want_sums else 0)


def _surrogate_save(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0], output[1], inputs[1])
    ctx.surrogate = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _surrogate_gradients(ctx, grad, *_):
    current, mem, v_th = ctx.saved_tensors
    want_sums = v_th is not None and ctx.needs_input_grad[1]
    d_current, sums = _surrogate_backward(grad.contiguous(), current, mem, v_th, want_sums, *ctx.surrogate)
    d_v_th = _over_batch(sums, v_th.numel()) if want_sums else None
    return d_current, d_v_th, *(None,) * 5


torch.library.register_autograd("sdn::surrogate", _surrogate_gradients, setup_context=_surrogate_save)
torch.library.register_autograd("sdn::surrogate_backward", _refuse_twice)
