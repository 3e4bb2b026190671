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
from sdn.surrogate import TRIANGLE

from .kernel import power_table
from .norms import BatchNorm, LayerNorm, NoNorm, Norm
from .s4d import S4DKernel, S4DKernelB
from .ss4d import SS4D

if TYPE_CHECKING:
    from .ssm import SpikingSSM

try:
    from sdn.kernels.simd import WIDTH

    from . import conv_kernels, mix_kernels, mode_kernels, norm_kernels
except ImportError:  # no numba: sdn.kernels says so where neurons run without it
    WIDTH = 0

_SHARES = 4  # equal parts of the work a thread may take, where sums are kept for each
_WIDEST = 1 << 15  # channel numbers are kept in 16 bits


# ------------------------------------------------------------------------------------------------------ when it applies


def ready(model: SpikingSSM, x: Tensor) -> bool:
    """Whether this path computes what ``model`` would for ``x (B, L, H)``: on a CPU, in float32 or float64, by plain
    LIF neurons, nothing compiled, cast or watched by hooks."""
    if not WIDTH or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or not x.numel():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if kernels.chosen() != "auto" or not _fits(model.d_model) or _forward_mode(x):
        return False
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    if x.shape[0] * x.shape[1] == 1:  # batch norm has something to say about it
        return False
    return all(map(_plain_layer, model.layers)) and all(map(_plain_norm, model.norms)) and _same_type(model, x.dtype)


def _fits(H: int) -> bool:
    return H % WIDTH == 0 and 2 * WIDTH <= H < _WIDEST


def _forward_mode(x: Tensor) -> bool:
    return torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _plain_layer(layer: nn.Module) -> bool:
    if type(layer) is not SS4D or type(layer.neuron) is not LIF:
        return False
    neuron, kernel = layer.neuron, layer.kernel
    if isinstance(neuron.tau, Tensor) or isinstance(neuron.u_r, Tensor) or neuron.surrogate != TRIANGLE:
        return False
    return type(kernel) in (S4DKernel, S4DKernelB) and not any(map(_watched, (layer, neuron, kernel, layer.mix)))


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


# ------------------------------------------------------------------------------------------------------------ one layer


class _Options(NamedTuple):
    """What :class:`_Layer` needs beside tensors."""

    norm: Norm
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
        assert isinstance(neuron, LIF)  # so :func:`ready` says
        dtA, B_bar, C = layer.kernel.discretise(rate)
        coef: Tensor = C * B_bar
        D: Tensor = layer.D
        if inv_vth is not None:
            coef, D = coef * inv_vth.unsqueeze(-1), D * inv_vth
        before, after = mix._channel_mask(x[:, 0]), mix._channel_mask(x[:, 0])
        through_time = neuron.gradient == "bptt"
        tau, u_r, soft = float(neuron.tau), float(neuron.u_r), neuron.reset == "soft"
        options = _Options(norm, model.prenorm, steps, tau, u_r, soft, through_time, 1 - mix.dropout)
        weight, bias = (None, None) if isinstance(norm, NoNorm) else (norm.weight, norm.bias)
        x = _Layer.apply(x, coef, dtA, D, mix.weight.squeeze(-1), mix.bias, weight, bias, before, after, options)
    return x


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        coef: Tensor,
        dtA: Tensor,
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
        conv = _Convolution(x.shape, x.dtype, options)
        potential = conv.forward(signal, coef.detach(), dtA.detach(), D)
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
        at_u, *by_kernel = conv.backward(at_s, signal, potential, None if options.prenorm else grad)
        if options.prenorm:
            at_u, by_norm = norm.backward(at_u, x, grad)
        return at_u, *by_kernel, by_weight, by_bias, *by_norm, None, None, None


def _new(*shape: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised, from numpy, which asks the system for huge pages."""
    return torch.from_numpy(np.empty(shape, np.float64 if dtype == torch.float64 else np.float32))


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().reshape(-1).numpy()


def _shares() -> int:
    threads = torch.get_num_threads()
    return 1 if threads == 1 else _SHARES * threads


class _Convolution:
    """Kernel, convolution and neuron; see :mod:`models.spike.mode_kernels` and :mod:`models.spike.conv_kernels`."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype, options: _Options) -> None:
        self.shape, self.options = shape, options
        B, L, H = shape
        self.real = np.dtype(np.float64 if dtype == torch.float64 else np.float32).type
        self.n = conv_kernels.size(L)
        self.sizes = (L, H, self.n, *conv_kernels.plan(self.n, self.real))
        self.pairs, self.blocks = (B + 1) // 2, H // WIDTH

    def forward(self, signal: Tensor, coef: Tensor, dtA: Tensor, D: Tensor) -> Tensor:
        (_, L, _), options, (c, _, N) = self.shape, self.options, coef.shape
        powers = power_table(dtA, max(L, 2 * mode_kernels.SEGMENT)).numpy()  # (H, levels, N)
        self.coef, self.modes = coef, (c, N, powers.shape[1], L, self.n)
        self.table = mode_kernels.lanes(np.moveaxis(powers, 1, 0))  # (levels, blocks, N, 2, WIDTH)
        self.table = np.moveaxis(self.table.reshape(powers.shape[1], self.blocks, N, -1), 0, 2).reshape(-1)
        self.spectrum = np.empty(self.blocks * self.n * conv_kernels.STEP, self.real)
        arrays = self.table, mode_kernels.lanes((2 * coef).numpy()), _flat(D), self.spectrum
        spread(mode_kernels.kernel, self.blocks, 1, *arrays, *self.modes)
        spread(conv_kernels.spectra, self.blocks, 1, self.spectrum, *self.sizes[2:])
        out = _new(*self.shape, dtype=signal.dtype)
        numbers = (self.real(options.tau), self.real(options.u_r), options.soft)
        arrays = (_flat(signal), options.lengths, self.spectrum, _flat(out))
        spread(conv_kernels.forward, self.blocks * self.pairs, 1, *arrays, *numbers, *self.sizes)
        return out

    def backward(self, grad: Tensor, signal: Tensor, potential: Tensor, base: Tensor | None) -> tuple[Tensor, ...]:
        """Gradients at the signal (it overwrites ``grad``, that at the spikes), coef, dtA and D."""
        options, (c, N, *_), H = self.options, self.modes, self.shape[2]
        parts = min(self.pairs, -(-_shares() // self.blocks))
        sums = np.empty(parts * self.blocks * self.n * conv_kernels.STEP, self.real)
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
        spread(conv_kernels.kernels, self.blocks, 1, sums, parts, self.blocks, *self.sizes[2:])
        found = np.empty(c * 2 * H * 2 * N, self.real)
        spread(mode_kernels.moments, self.blocks, 1, sums, self.table, found, *self.modes)
        zeroth, first = torch.from_numpy(mode_kernels.channels(found, c, 2, H, N)).unbind(1)
        by_D = sums[: self.blocks * self.n * conv_kernels.STEP].reshape(self.blocks, -1)[:, :WIDTH].reshape(-1)
        return grad, (2 * zeroth).conj(), (2 * first * self.coef).sum(0).conj(), torch.from_numpy(by_D.copy())


def _masks(before: Tensor | None, after: Tensor | None, x: Tensor, keep: float) -> tuple:
    if before is None or after is None:
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


def _norm(options: _Options, weight: Tensor | None, bias: Tensor | None) -> _NoNorm | _LayerNorm | _BatchNorm:
    norm = options.norm
    if isinstance(norm, NoNorm) or weight is None or bias is None:
        return _NoNorm()
    if isinstance(norm, LayerNorm):
        return _LayerNorm(norm, weight, bias)
    return _BatchNorm(norm, options.lengths, weight, bias)


class _NoNorm:
    kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, grad: Tensor, x: Tensor, base: Tensor | None) -> tuple[Tensor, tuple]:
        return grad if base is None else grad.add_(base), (None, None)


class _LayerNorm:
    def __init__(self, norm: LayerNorm, weight: Tensor, bias: Tensor) -> None:
        self.eps, self.weight, self.bias = norm.eps, weight.detach(), bias.detach()
        self.kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        (B, L, H), y = x.shape, _new(*x.shape, dtype=x.dtype)
        stats = _new(B * L, 2, dtype=x.dtype)
        arrays = _flat(x), _flat(self.weight), _flat(self.bias)
        spread(
            norm_kernels.layer_forward, B * L, 64, *arrays, arrays[0].dtype.type(self.eps), _flat(y), _flat(stats), H
        )
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
        self.training = norm.training
        self.kept: tuple[Tensor, ...] = ()

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
        (_, L, H), slots, norm = x.shape, _shares(), self.norm
        moments, counts = np.zeros((slots, 2, H)), np.zeros(slots, np.int64)
        arrays = _flat(x), self.lengths, moments.reshape(-1), counts
        spread(norm_kernels.batch_moments, slots, 1, *arrays, slots, L, H)
        total = max(int(counts.sum()), 1)
        share = counts[:, None] / total
        centre = (share * moments[:, 0]).sum(0)
        around = (moments[:, 1] + counts[:, None] * (moments[:, 0] - centre) ** 2).sum(0) / total
        mean, var = torch.from_numpy(centre).to(x.dtype), torch.from_numpy(around).to(x.dtype)
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
