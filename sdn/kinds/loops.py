"""Compiled loops over time on a CPU for the neurons of this folder, many neurons at once in the lanes of a vector.

A neuron's truth is its equation, step by step in Python; its loops, in a file ``*_kernels.py`` beside it, are the same
forwards and, from states kept every SEAM steps, backwards. Loops run on signals ``(G, L, W)``, W a multiple of WIDTH::

    forward(first, last, x, s, seams, state, parameters, *numbers, L, W)
    backward(first, last, grad, x, dx, seams, parameters, sums, *numbers, kind, sharp, height, L, W)

for the tasks ``first`` to ``last``: number q is lanes q % (W / WIDTH) WIDTH ... of group q // (W / WIDTH). All arrays
are flat: ``seams (G, ceil(L / SEAM), n, W)``, or empty if nothing is kept; ``state (n, G, W)``, before and then after;
the ``parameters (p, W)``; ``sums (p, G, W)``, their gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from ..contract import Neuron
from ..kernels.threads import spread
from ..ops import is_transformed
from ..surrogate import Surrogate

SEAM = 64
"""Steps between two states that are kept: what a loop backwards computes again at once, within the first cache."""


def ready(current: Tensor, *others: Tensor | None) -> bool:
    """Whether compiled loops can take ``current (B, H, L)``: on a CPU with numba, nothing traced or transformed."""
    if current.device.type != "cpu" or not current.numel() or kernels.chosen() not in ("auto", "cpu"):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed(current, *others):
        return False
    return kernels.pick("cpu").__name__.endswith(".cpu")


def run(
    loops: ModuleType,
    neuron: Neuron,
    current: Tensor,
    state: Sequence[Tensor] | None,
    v_th: Tensor | None,
    parameters: Sequence[Tensor],
    numbers: Sequence[float | bool] = (),
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """``(s (B, H, L), state)`` of ``neuron`` by ``loops``, from parameters ``(H,)`` and a state of tensors ``(B, H)``.

    Gradients reach current, v_th and parameters. s is of the type of ``current``, and laid out as it is: time last in
    memory, or channels last.
    """
    neuron.check_current(current)
    x = neuron.scaled(current, v_th)
    if state is None:
        state = neuron.initial_state(current.shape[0], current.shape[1], dtype=x.dtype)
    neuron.check_state(current, state)
    real = functools.reduce(torch.promote_types, [other.dtype for other in (*parameters, *state)], x.dtype)
    stacked = torch.stack([p.to(real) for p in parameters])
    start = torch.stack([v.detach().to(real) for v in state])
    s, end = _Scan.apply(x.to(real), stacked, start, loops, tuple(numbers), neuron.surrogate)
    return s.to(current.dtype), tuple(end.unbind(0))


class _Lanes:
    """How ``(B, H, L)`` lies in the lanes: channels of a sample, or where they fill no vector all rows of the batch."""

    def __init__(self, shape: torch.Size, width: int) -> None:
        self.shape, (B, H, L) = shape, shape
        self.by_sample = H % width == 0
        self.G, self.L, self.W = (B, L, H) if self.by_sample else (1, L, -(-B * H // width) * width)

    def of_signal(self, x: Tensor) -> np.ndarray:
        """Of x ``(B, H, L)``."""
        B, H, L = self.shape
        if self.by_sample:
            return x.detach().transpose(1, 2).contiguous().view(-1).numpy()
        out = x.new_zeros(L, self.W)
        out[:, : B * H] = x.detach().reshape(B * H, L).T
        return out.view(-1).numpy()

    def signal(self, flat: np.ndarray, like: Tensor) -> Tensor:
        """The way back, laid out as ``like``."""
        B, H, L = self.shape
        out = torch.from_numpy(flat)
        if not self.by_sample:
            return out.view(L, self.W)[:, : B * H].T.contiguous().view(B, H, L)
        out = out.view(B, L, H).transpose(1, 2)
        return out if like.transpose(1, 2).is_contiguous() else out.contiguous()

    def of_channels(self, v: Tensor) -> np.ndarray:
        """Of numbers ``(k, H)``, the same for all samples."""
        return self.of_rows(v.unsqueeze(1).expand(-1, self.shape[0], -1)) if not self.by_sample else _flat(v)

    def of_rows(self, v: Tensor) -> np.ndarray:
        """Of numbers ``(k, B, H)``."""
        if self.by_sample:
            return _flat(v)
        k, B, H = v.shape
        out = v.new_zeros(k, self.W)
        out[:, : B * H] = v.detach().reshape(k, B * H)
        return _flat(out)

    def rows(self, flat: np.ndarray) -> Tensor:
        """The way back, ``(k, B, H)``."""
        B, H, _ = self.shape
        out = torch.from_numpy(flat)
        return out.view(-1, B, H) if self.by_sample else out.view(-1, self.W)[:, : B * H].reshape(-1, B, H)


def _flat(v: Tensor) -> np.ndarray:
    return v.detach().contiguous().view(-1).numpy()


def _numbers(numbers: Sequence[float | bool], real: type) -> list[object]:
    return [number if isinstance(number, bool) else real(number) for number in numbers]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, parameters: Tensor, start: Tensor, loops: ModuleType, numbers: tuple, surrogate: Surrogate
    ) -> tuple[Tensor, Tensor]:
        lanes = _Lanes(x.shape, loops.WIDTH)
        signal, n, keep = lanes.of_signal(x), len(start), any(ctx.needs_input_grad[:2])
        seams = np.empty(lanes.G * -(-lanes.L // SEAM) * n * lanes.W if keep else 0, signal.dtype)
        s, state = np.empty_like(signal), lanes.of_rows(start).copy()
        arrays = signal, s, seams, state, lanes.of_channels(parameters)
        rest = (*_numbers(numbers, signal.dtype.type), lanes.L, lanes.W)
        spread(loops.forward, lanes.G * lanes.W // loops.WIDTH, 1, *arrays, *rest)
        out, end = lanes.signal(s, x), lanes.rows(state)
        ctx.save_for_backward(x, parameters, torch.from_numpy(seams))
        ctx.loops, ctx.numbers, ctx.surrogate = loops, numbers, surrogate
        ctx.mark_non_differentiable(end)
        return out, end

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        dx, by_parameters = _Back.apply(grad, *ctx.saved_tensors, ctx.loops, ctx.numbers, ctx.surrogate)
        return dx, by_parameters, None, None, None, None


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        grad: Tensor,
        x: Tensor,
        parameters: Tensor,
        seams: Tensor,
        loops: ModuleType,
        numbers: tuple,
        surrogate: Surrogate,
    ) -> tuple[Tensor, Tensor]:
        from ..kernels.cpu_psi import psi_arguments

        lanes = _Lanes(x.shape, loops.WIDTH)
        signal, real = lanes.of_signal(x), np.dtype(str(x.dtype).removeprefix("torch."))
        sums, dx = np.empty(len(parameters) * lanes.G * lanes.W, real), np.empty_like(signal)
        arrays = lanes.of_signal(grad), signal, dx, seams.numpy(), lanes.of_channels(parameters), sums
        rest = (*_numbers(numbers, real.type), *psi_arguments(surrogate, real), lanes.L, lanes.W)
        spread(loops.backward, lanes.G * lanes.W // loops.WIDTH, 1, *arrays, *rest)
        return lanes.signal(dx, x), lanes.rows(sums).sum(1)

    @staticmethod
    def backward(ctx, *_: Tensor) -> None:
        raise RuntimeError(
            "the gradient of a compiled neuron cannot be differentiated again; "
            "run it within sdn.kernels.use('reference')"
        )
