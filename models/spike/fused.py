"""A whole layer on a CPU in few passes, each by threads that take large pieces: the fast path of :class:`SpikingSSM`.

Same equations and gradients as the plain composition of :mod:`models.spike.ss4d`, which stays the truth and does what
this does not. For x ``(B, L, H)``, channels last, with norm and residual on either side::

    forward     [norm]  ->  convolution and neuron, to u' (potential before the spike)  ->  mix, gate, residual  [norm]
    backward    the same four backwards; [a; b] of the mix is computed again from u', which holds the spikes

For the backward pass a layer keeps its input, u', the convolution's input if a norm stands before it, and little else.
:func:`ready` says whether all of it applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

from sdn import kernels
from sdn.kernels.threads import spread
from sdn.neurons import LIF

from .fftconv import circular, from_circular
from .norms import BatchNorm, LayerNorm, NoNorm
from .ss4d import SS4D

if TYPE_CHECKING:
    from .ssm import SpikingSSM

try:
    from sdn.kernels.simd import WIDTH

    from . import conv_kernels, mix_kernels, norm_kernels
except ImportError:  # no numba: sdn.kernels says so where neurons run without it
    WIDTH = 0

_SHARES = 4  # equal parts of the work a thread may take, where sums are kept for each
_WIDEST = 1 << 15  # channel numbers are kept in 16 bits


# ------------------------------------------------------------------------------------------------------- when it applies


def ready(model: SpikingSSM, x: Tensor) -> bool:
    """Whether this path computes what ``model`` would for ``x (B, L, H)``: on a CPU, in float32 or float64, by plain
    LIF neurons, nothing compiled, cast or watched by hooks."""
    if not WIDTH or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or not x.numel():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if kernels.chosen() != "auto" or model.d_model % WIDTH or model.d_model >= _WIDEST or _forward_mode(x):
        return False
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    return all(map(_plain_layer, model.layers)) and all(map(_plain_norm, model.norms)) and _same_type(model, x.dtype)


def _forward_mode(x: Tensor) -> bool:
    return torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _plain_layer(layer: nn.Module) -> bool:
    if type(layer) is not SS4D or type(layer.neuron) is not LIF:
        return False
    neuron = layer.neuron
    if isinstance(neuron.tau, Tensor) or isinstance(neuron.u_r, Tensor):
        return False
    return not any(map(_watched, (layer, neuron, layer.mix)))


def _plain_norm(norm: nn.Module) -> bool:
    if type(norm) is NoNorm:
        return not _watched(norm)
    if type(norm) not in (LayerNorm, BatchNorm) or norm.weight is None or norm.bias is None or _watched(norm):
        return False
    return type(norm) is LayerNorm or norm.track_running_stats


def _same_type(model: SpikingSSM, dtype: torch.dtype) -> bool:
    return all(p.dtype == dtype and p.device.type == "cpu" for p in model.parameters())


# ------------------------------------------------------------------------------------------------------------ one layer


class _Options(NamedTuple):
    """What :class:`_Layer` needs beside tensors."""

    norm: nn.Module
    prenorm: bool
    lengths: np.ndarray
    tau: float
    u_r: float
    soft: bool
    through_time: bool
    keep: float


def run(model: SpikingSSM, x: Tensor, lengths: Tensor | None, rate: float) -> Tensor:
    """``x (B, L, H)`` through all layers of ``model``; ``lengths`` only where padding is masked."""
    B, L, _ = x.shape
    x = x.contiguous()
    steps = np.full(B, L) if lengths is None else lengths.clamp(0, L).cpu().numpy().astype(np.int64)
    for layer, norm in zip(model.layers, model.norms, strict=True):
        inv_vth, mix, neuron = layer._inv_vth(), layer.mix, layer.neuron
        k = layer.kernel(L, rate, inv_vth)
        D = layer.D if inv_vth is None else layer.D * inv_vth
        before, after = mix._channel_mask(x[:, 0]), mix._channel_mask(x[:, 0])
        through_time = neuron.gradient == "bptt"
        options = _Options(
            norm, model.prenorm, steps, neuron.tau, neuron.u_r, neuron.reset == "soft", through_time, 1 - mix.dropout
        )
        weight, bias = (None, None) if isinstance(norm, NoNorm) else (norm.weight, norm.bias)
        x = _Layer.apply(x, k, D, mix.weight.squeeze(-1), mix.bias, weight, bias, before, after, options)
    return x


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        k: Tensor,
        D: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        before: Tensor | None,
        after: Tensor | None,
        options: _Options,
    ) -> Tensor:
        norm = _norm(options, norm_weight, norm_bias)
        signal = norm.forward(x) if options.prenorm else x
        conv = _Convolution(x.shape, x.dtype, k.shape[0], options)
        potential = conv.forward(signal, k, D)
        y = _mix_forward(x, potential, weight, bias, before, after, options)
        out = y if options.prenorm else norm.forward(y)
        ctx.save_for_backward(x, signal, potential, y, weight, bias, norm_weight, norm_bias, before, after, *norm.kept)
        ctx.conv, ctx.norm = conv, norm
        norm.kept = ()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, signal, potential, y, weight, bias, _, _, before, after, *kept = ctx.saved_tensors
        norm, conv, options = ctx.norm, ctx.conv, ctx.conv.options
        norm.kept, grad, by_norm = tuple(kept), grad.contiguous(), (None, None)
        if not options.prenorm:
            grad, by_norm = norm.backward(grad, y, None)
        at_s, by_weight, by_bias = _mix_backward(grad, potential, weight, bias, before, after, options)
        at_u, by_k, by_D = conv.backward(at_s, signal, potential, None if options.prenorm else grad)
        if options.prenorm:
            at_u, by_norm = norm.backward(at_u, x, grad)
        return at_u, by_k, by_D, by_weight, by_bias, *by_norm, None, None, None


def _new(*shape: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised, from numpy, which asks the system for huge pages."""
    return torch.from_numpy(np.empty(shape, np.float64 if dtype == torch.float64 else np.float32))


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().reshape(-1).numpy()


def _shares() -> int:
    threads = torch.get_num_threads()
    return 1 if threads == 1 else _SHARES * threads


class _Convolution:
    """Convolution and neuron; see :mod:`models.spike.conv_kernels`."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype, directions: int, options: _Options) -> None:
        self.shape, self.directions, self.options = shape, directions, options
        B, L, H = shape
        self.real = np.dtype(np.float64 if dtype == torch.float64 else np.float32).type
        self.n = conv_kernels.size(L)
        self.sizes = (L, H, self.n, *conv_kernels.plan(self.n, self.real))
        self.pairs, self.blocks = (B + 1) // 2, H // WIDTH

    def forward(self, signal: Tensor, k: Tensor, D: Tensor) -> Tensor:
        options, plan = self.options, self.sizes[2:]
        circle = _flat(circular(k.detach(), D.detach(), self.n))
        self.spectrum = np.empty(self.blocks * self.n * conv_kernels.STEP, self.real)
        spread(conv_kernels.spectra, self.blocks, 1, circle, self.spectrum, *plan)
        out = _new(*self.shape, dtype=signal.dtype)
        numbers = (self.real(options.tau), self.real(options.u_r), options.soft)
        arrays = (_flat(signal), options.lengths, self.spectrum, _flat(out))
        spread(conv_kernels.forward, self.blocks * self.pairs, 1, *arrays, *numbers, *self.sizes)
        return out

    def backward(
        self, grad: Tensor, signal: Tensor, potential: Tensor, base: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``grad``, at the spikes, is overwritten by what is returned."""
        (_, L, H), options, plan, n = self.shape, self.options, self.sizes[2:], self.n
        parts = min(self.pairs, -(-_shares() // self.blocks))
        sums = np.empty(parts * self.blocks * n * conv_kernels.STEP, self.real)
        spread(
            conv_kernels.backward,
            self.blocks * parts,
            1,
            _flat(grad),
            _flat(signal),
            options.lengths,
            _flat(potential),
            _flat(grad),
            _flat(grad if base is None else base),
            base is not None,
            self.spectrum,
            sums,
            parts,
            self.blocks,
            self.real(options.tau),
            options.soft,
            options.through_time,
            *self.sizes,
        )
        circle, by_k = _new(H, n, dtype=grad.dtype), _new(H, self.directions, L, dtype=grad.dtype).transpose(0, 1)
        spread(conv_kernels.kernels, self.blocks, 1, sums, parts, self.blocks, _flat(circle), *plan)
        from_circular(circle, by_k)
        return grad, by_k, by_k[0, :, 0].clone()  # k and D meet at lag 0 of the first direction


def _masks(before: Tensor | None, after: Tensor | None, x: Tensor, keep: float) -> tuple:
    if before is None:
        nothing = _flat(x.new_empty(0))
        return nothing, nothing, nothing.dtype.type(1), False
    return _flat(before), _flat(after), _flat(before).dtype.type(1 / keep), True


def _mix_forward(x, potential, weight, bias, before, after, options) -> Tensor:
    B, L, H = x.shape
    y = _new(B, L, H, dtype=x.dtype)
    arrays = (_flat(x), _flat(potential), _flat(weight.T.contiguous()), _flat(bias), _flat(y))
    tasks = B * -(-L // mix_kernels.ROWS)
    spread(mix_kernels.forward, tasks, 1, *arrays, *_masks(before, after, x, options.keep), L, H)
    return y


def _mix_backward(grad, potential, weight, bias, before, after, options) -> tuple[Tensor, Tensor, Tensor]:
    B, L, H = grad.shape
    slots, out = _shares(), _new(B, L, H, dtype=grad.dtype)
    by_weight, by_bias = grad.new_zeros(slots, H, 2 * H), grad.new_zeros(slots, 2 * H)
    panels = weight.view(2 * H, H // WIDTH, WIDTH).transpose(0, 1).contiguous()
    arrays = [_flat(t) for t in (grad, potential, weight.T.contiguous(), panels, bias, out, by_weight, by_bias)]
    spread(mix_kernels.backward, slots, 1, *arrays, slots, *_masks(before, after, grad, options.keep), B, L, H)
    return out, by_weight.sum(0).T, by_bias.sum(0)


# ---------------------------------------------------------------------------------------------------------------- norms


def _norm(options: _Options, weight: Tensor | None, bias: Tensor | None):
    if isinstance(options.norm, NoNorm):
        return _NoNorm()
    kind = _LayerNorm if isinstance(options.norm, LayerNorm) else _BatchNorm
    return kind(options.norm, options.lengths, weight, bias)


class _NoNorm:
    kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        return grad if base is None else grad.add_(base), (None, None)


class _LayerNorm:
    def __init__(self, norm: LayerNorm, lengths: np.ndarray, weight: Tensor, bias: Tensor) -> None:
        self.eps, self.weight, self.bias = norm.eps, weight.detach(), bias.detach()
        self.kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        (B, L, H), y = x.shape, _new(*x.shape, dtype=x.dtype)
        stats = _new(B * L, 2, dtype=x.dtype)
        arrays = _flat(x), _flat(self.weight), _flat(self.bias)
        spread(norm_kernels.layer_forward, B * L, 64, *arrays, arrays[0].dtype.type(self.eps), _flat(y), _flat(stats), H)
        self.kept = (stats,)
        return y

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        """The gradient at x plus ``base``; it overwrites ``grad`` if there is a ``base``."""
        (B, L, H), slots = x.shape, _shares()
        out = _new(B, L, H, dtype=x.dtype) if base is None else grad
        by_weight, by_bias = x.new_zeros(slots, H), x.new_zeros(slots, H)
        arrays = [_flat(t) for t in (grad, x, self.weight, *self.kept, out, grad if base is None else base)]
        sums = _flat(by_weight), _flat(by_bias)
        spread(norm_kernels.layer_backward, slots, 1, *arrays, base is not None, *sums, slots, B * L, H)
        return out, (by_weight.sum(0), by_bias.sum(0))


class _BatchNorm:
    def __init__(self, norm: BatchNorm, lengths: np.ndarray, weight: Tensor, bias: Tensor) -> None:
        self.norm, self.lengths, self.weight, self.bias = norm, lengths, weight.detach(), bias.detach()
        self.training, self.kept = norm.training, ()

    def forward(self, x: Tensor) -> Tensor:
        (B, L, H), y = x.shape, _new(*x.shape, dtype=x.dtype)
        if self.training:
            mean, var = self._moments(x)
        else:
            mean, var = self.norm.running_mean, self.norm.running_var
        inverse = torch.rsqrt(var + self.norm.eps)
        arrays = _flat(x), _flat(mean), _flat(self.weight * inverse), _flat(self.bias), _flat(y)
        spread(norm_kernels.affine, B * L, 64, *arrays, H)
        self.kept = (mean.clone(), inverse)
        return y

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (B, L, H), slots, norm = x.shape, _shares(), self.norm
        moments, counts = np.zeros((slots, 2, H)), np.zeros(slots, np.int64)
        arrays = _flat(x), self.lengths, moments.reshape(-1), counts
        spread(norm_kernels.batch_moments, slots, 1, *arrays, slots, L, H)
        total = max(int(counts.sum()), 1)
        share = counts[:, None] / total
        mean = (share * moments[:, 0]).sum(0)
        var = (moments[:, 1] + counts[:, None] * (moments[:, 0] - mean) ** 2).sum(0) / total
        mean, var = (torch.from_numpy(v).to(x.dtype) for v in (mean, var))
        with torch.no_grad():
            norm.num_batches_tracked += 1
            step = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, step)
            norm.running_var.lerp_(var * (total / max(total - 1, 1)), step)
        return mean, var

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        """As :meth:`_LayerNorm.backward`."""
        (B, L, H), slots, (mean, inverse) = x.shape, _shares(), self.kept
        out = _new(B, L, H, dtype=x.dtype) if base is None else grad
        sums = x.new_zeros(slots, 2, H)
        arrays = _flat(grad), _flat(x), _flat(mean), _flat(sums)
        spread(norm_kernels.batch_sums, slots, 1, *arrays, slots, B * L, H)
        by_bias, by_scale = sums.sum(0)
        scale = self.weight * inverse
        shift, slope = torch.zeros_like(scale), torch.zeros_like(scale)
        if self.training:
            total = max(int(self.lengths.sum()), 1)
            shift, slope = scale * by_bias / total, scale * by_scale * inverse.square() / total
        numbers = [_flat(t) for t in (mean, scale, shift, slope)]
        ends = _flat(out), _flat(grad if base is None else base), base is not None
        spread(norm_kernels.batch_backward, B * L, 64, *arrays[:2], self.lengths, *numbers, *ends, L, H)
        return out, (by_scale * inverse, by_bias)
