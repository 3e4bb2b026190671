"""A whole layer on a CPU in few passes, each by threads that take large pieces: the fast path of :class:`SpikingSSM`.

Same equations and gradients as the plain composition of :mod:`models.spike.ss4d`, which stays the truth and does what
this does not. For x ``(B, L, H)``, channels last, with norm and residual on either side::

    forward     [norm]  ->  convolution and neuron, to u' (potential before the spike)  ->  mix, gate, residual  [norm]
    backward    the same four backwards; [a; b] of the mix is computed again from u', which holds the spikes

For the backward pass such a layer keeps its input, u', the convolution's input if a norm stands before it, and little
else. Leaky neurons and SDNs run inside the convolution's pass; any other neuron, and one that hooks watch, is called
between the passes, on the current. :func:`ready` says whether all of it applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

from sdn import kernels
from sdn.neurons import LIF

from .mix import Mix
from .norms import BatchNorm, LayerNorm, NoNorm, Norm
from .s4d import S4DKernel, S4DKernelB
from .ss4d import SS4D

if TYPE_CHECKING:
    from .ssm import SpikingSSM

try:
    from sdn.kernels.simd import WIDTH

    from .fused_arrays import new, real
    from .fused_norms import norm_pass
    from .fused_parts import Convolution, Inner, Masks, inside, mix_backward, mix_forward, outside, runs_inside
except ImportError:  # no numba: sdn.kernels says so where neurons run without it
    WIDTH = 0

# Measured against the plain composition: longer transforms leave the cache, and wide mixes are MKL's.
_LONGEST, _WIDEST = 1536, 512


# ------------------------------------------------------------------------------------------------------ when it applies


def ready(model: SpikingSSM, x: Tensor) -> bool:
    """Whether this path computes what ``model`` would for ``x (B, L, H)``, and no slower: on a CPU, in float32 or
    float64, of a length and width it was measured at, nothing but its neurons compiled, cast or watched by hooks."""
    if not WIDTH or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or not x.numel():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if kernels.chosen() != "auto" or not _fits(x.shape[1], model.d_model) or _forward_mode(x):
        return False
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    if x.shape[0] * x.shape[1] == 1:  # batch norm has something to say about it
        return False
    return all(map(_plain_layer, model.layers)) and all(map(_plain_norm, model.norms)) and _same_type(model, x.dtype)


def _fits(L: int, H: int) -> bool:
    return H % WIDTH == 0 and 2 * WIDTH <= H <= _WIDEST and L <= _LONGEST


def _forward_mode(x: Tensor) -> bool:
    return torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _plain_layer(layer: nn.Module) -> bool:
    if type(layer) is not SS4D or type(layer.mix) is not Mix or type(layer.kernel) not in (S4DKernel, S4DKernelB):
        return False
    return not any(map(_watched, (layer, layer.kernel, layer.mix)))


def _plain_norm(norm: nn.Module) -> bool:
    if _watched(norm):
        return False
    if type(norm) is BatchNorm and not norm.track_running_stats:
        return False
    if type(norm) is LayerNorm or type(norm) is BatchNorm:
        return norm.weight is not None and norm.bias is not None
    return type(norm) is NoNorm


def _same_type(model: SpikingSSM, dtype: torch.dtype) -> bool:
    return all(p.dtype == dtype and p.device.type == "cpu" for p in model.parameters())


# -------------------------------------------------------------------------------------------------------------- a layer


class _Options(NamedTuple):
    """What a layer's functions need beside tensors."""

    norm: Norm
    prenorm: bool
    lengths: np.ndarray
    neuron: Inner
    masks: Masks
    learnt: bool = False
    graded: bool = False


def run(model: SpikingSSM, x: Tensor, lengths: Tensor | None, rate: float) -> Tensor:
    """``x (B, L, H)`` through all layers of ``model``; ``lengths`` only where padding is masked."""
    B, L, _ = x.shape
    x = x.contiguous()
    steps = np.full(B, L) if lengths is None else lengths.clamp(0, L).cpu().numpy().astype(np.int64)
    for layer, norm in zip(model.layers, model.norms, strict=True):
        inside_ = runs_inside(layer.neuron) and not any(map(_watched, layer.neuron.modules()))
        x = (_run_inside if inside_ else _run_around)(layer, norm, model.prenorm, x, steps, rate)
    return x


def _kernel(layer: SS4D, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """``(coef, dtA, D)``, in units of the threshold."""
    inv_vth = layer._inv_vth()
    dtA, B_bar, C = layer.kernel.discretise(rate)
    coef: Tensor = C * B_bar
    D: Tensor = layer.D
    if inv_vth is not None:
        coef, D = coef * inv_vth.unsqueeze(-1), D * inv_vth
    return coef, dtA, D


def _masks(mix: Mix, x: Tensor) -> Masks:
    return Masks(mix._channel_mask(x[:, 0]), mix._channel_mask(x[:, 0]), 1 - mix.dropout)


def _of_norm(norm: Norm) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if isinstance(norm, NoNorm) else (norm.weight, norm.bias)


def _of_mix(mix: Mix) -> tuple[Tensor, Tensor]:
    return mix.weight.squeeze(-1), mix.bias


def _run_inside(layer: SS4D, norm: Norm, prenorm: bool, x: Tensor, steps: np.ndarray, rate: float) -> Tensor:
    """A layer whose neuron the convolution's pass knows."""
    numbers: list[float | Tensor] = [0.0, 0.0]
    if isinstance(layer.neuron, LIF):
        numbers = [layer.neuron.tau, layer.neuron.u_r]
    learnt = any(isinstance(v, Tensor) for v in numbers)
    each = [v if isinstance(v, Tensor) else torch.full_like(layer.D, v, requires_grad=False) for v in numbers]
    options = _Options(norm, prenorm, steps, inside(layer.neuron, real(x.dtype)), _masks(layer.mix, x), learnt)
    return _Layer.apply(x, *_kernel(layer, rate), *each, *_of_mix(layer.mix), *_of_norm(norm), options)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        coef: Tensor,
        dtA: Tensor,
        D: Tensor,
        tau: Tensor,
        u_r: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        options: _Options,
    ) -> Tensor:
        norm = norm_pass(options.norm, options.lengths, norm_weight, norm_bias)
        signal = norm.forward(x) if options.prenorm else x
        conv = Convolution(x.shape, options.lengths, options.neuron, tau, u_r)
        potential = conv.forward(signal, coef.detach(), dtA.detach(), D)
        y, ctx.layout = mix_forward(x, potential, False, weight, bias, options.masks)
        out = y if options.prenorm else norm.forward(y)
        ctx.save_for_backward(x, signal, potential, y, weight, bias, norm_weight, norm_bias, *norm.kept)
        ctx.conv, ctx.norm, ctx.options = conv, norm, options
        norm.kept = ()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, signal, potential, y, _, bias, _, _, *kept = ctx.saved_tensors
        norm, conv, options = ctx.norm, ctx.conv, ctx.options
        norm.kept, grad, by_norm = tuple(kept), grad.contiguous(), (None, None)
        if not options.prenorm:
            grad, by_norm = norm.backward(grad, y, None)
        at_s, *by_mix = mix_backward(grad, potential, False, ctx.layout, bias, options.masks)
        base = None if options.prenorm else grad
        at_u, *by_kernel = conv.backward(at_s, signal, potential, at_s, base, options.learnt)
        if options.prenorm:
            at_u, by_norm = norm.backward(at_u, x, grad)
        return at_u, *by_kernel, *by_mix, *by_norm, None


# --------------------------------------------------------------------------------------- a layer around another neuron


def _run_around(layer: SS4D, norm: Norm, prenorm: bool, x: Tensor, steps: np.ndarray, rate: float) -> Tensor:
    """A layer whose neuron is called as the module it is, on the current ``(B, H, L)``."""
    neuron = layer.neuron
    graded = not getattr(neuron, "binary", False)
    options = _Options(norm, prenorm, steps, outside(real(x.dtype)), Masks(None, None, 1.0), graded=graded)
    current = _Front.apply(x, *_kernel(layer, rate), *(_of_norm(norm) if prenorm else (None, None)), options)
    current = current.transpose(1, 2)
    s = neuron(current if getattr(neuron, "any_layout", False) else current.contiguous())
    s = s.to(x.dtype).transpose(1, 2).contiguous()
    options = options._replace(masks=_masks(layer.mix, x))  # drawn after what the neuron may draw
    return _Rest.apply(x, s, *_of_mix(layer.mix), *((None, None) if prenorm else _of_norm(norm)), options)


class _Front(torch.autograd.Function):
    """Norm, if it stands before, and convolution: to the current ``(B, L, H)``."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        coef: Tensor,
        dtA: Tensor,
        D: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        options: _Options,
    ) -> Tensor:
        norm = norm_pass(options.norm if options.prenorm else None, options.lengths, norm_weight, norm_bias)
        signal = norm.forward(x)
        conv = Convolution(x.shape, options.lengths, options.neuron, D, D)
        current = conv.forward(signal, coef.detach(), dtA.detach(), D)
        ctx.save_for_backward(x, signal, *norm.kept)
        ctx.conv, ctx.norm = conv, norm
        norm.kept = ()
        return current

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, signal, *kept = ctx.saved_tensors
        ctx.norm.kept, grad = tuple(kept), grad.contiguous()
        out = new(*grad.shape, dtype=grad.dtype)
        at_u, *by_kernel, _, _ = ctx.conv.backward(grad, signal, grad, out, None)
        at_x, by_norm = ctx.norm.backward(at_u, x, None)
        return at_x, *by_kernel, *by_norm, None


class _Rest(torch.autograd.Function):
    """Mix of s ``(B, L, H)``, residual, and norm if it stands after."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        s: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        options: _Options,
    ) -> Tensor:
        norm = norm_pass(None if options.prenorm else options.norm, options.lengths, norm_weight, norm_bias)
        y, ctx.layout = mix_forward(x, s, options.graded, weight, bias, options.masks)
        out = norm.forward(y)
        ctx.save_for_backward(s, y if norm.kept else None, weight, bias, *norm.kept)
        ctx.norm, ctx.options = norm, options
        norm.kept = ()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        s, y, _, bias, *kept = ctx.saved_tensors
        ctx.norm.kept = tuple(kept)
        grad, by_norm = ctx.norm.backward(grad.contiguous(), y, None)
        at_s, *by_mix = mix_backward(grad, s, ctx.options.graded, ctx.layout, bias, ctx.options.masks)
        return grad, at_s, *by_mix, *by_norm, None
