"""Convolution with neuron, and mix, of :mod:`models.spike.fused`: each one pass forwards and one backwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sdn.kernels.cpu_psi import psi_arguments
from sdn.kernels.simd import WIDTH, aligned
from sdn.kernels.threads import spread
from sdn.neurons import LIF, SDNNeuron

from . import conv_kernels, mix_kernels, mode_kernels
from .fused_arrays import flat, new, shares
from .neuron_kernels import CURRENT, HARD, NETWORK, SOFT, room

# -------------------------------------------------------------------------------------------------------------- neurons


class Inner(NamedTuple):
    """A neuron as the pass of the convolution runs it, without its tau and u_r ``(H,)``."""

    kind: int
    through_time: bool
    psi: tuple
    network: np.ndarray
    sizes: tuple[int, int, int, int]


def outside(real: type) -> Inner:
    """The pass ends with the current; a module takes it from there."""
    return Inner(CURRENT, False, (0, real(1), real(1)), np.empty(0, real), (0, 0, 0, 0))


def runs_inside(neuron: nn.Module) -> bool:
    """Whether :func:`inside` knows ``neuron``."""
    return type(neuron) in (LIF, SDNNeuron)


def inside(neuron: nn.Module, real: type) -> Inner:
    """A leaky neuron, or an SDN."""
    assert isinstance(neuron, (LIF, SDNNeuron))  # so :func:`runs_inside` says
    psi = psi_arguments(neuron.surrogate, np.dtype(real))
    if isinstance(neuron, LIF):
        kind = SOFT if neuron.reset == "soft" else HARD
        return Inner(kind, neuron.gradient == "bptt", psi, np.empty(0, real), (0, 0, 0, 0))
    sizes = neuron.sdn.sizes
    return Inner(NETWORK, False, psi, neuron.sdn.flat().numpy().astype(real), (*sizes, room(*sizes)))


# ---------------------------------------------------------------------------------------------------------- convolution


class Convolution:
    """Kernel, convolution and neuron; see :mod:`models.spike.mode_kernels` and :mod:`models.spike.conv_kernels`.

    ``lengths (B,)``: steps of each sample that count; ``tau``, ``u_r`` ``(H,)``: of a leaky neuron.
    """

    def __init__(self, shape: torch.Size, lengths: np.ndarray, neuron: Inner, tau: Tensor, u_r: Tensor) -> None:
        self.shape, self.lengths, self.neuron = shape, lengths, neuron
        B, L, H = shape
        self.real = neuron.network.dtype.type
        self.tau, self.u_r = flat(tau), flat(u_r)
        self.n = conv_kernels.size(L)
        self.sizes = (L, H, self.n, *conv_kernels.plan(self.n, neuron.network.dtype))
        self.pairs, self.blocks = (B + 1) // 2, H // WIDTH

    def forward(self, signal: Tensor, coef: Tensor, dtA: Tensor, D: Tensor) -> Tensor:
        """``(B, L, H)``: potentials before the spike, or currents."""
        (_, L, _), (c, _, N), neuron = self.shape, coef.shape, self.neuron
        levels = (max(L, 2 * mode_kernels.SEGMENT) - 1).bit_length()
        self.coef, self.modes = coef, (c, N, levels, L, self.n)
        self.table = aligned(2 * self.shape[2] * N * levels, self.real)
        spread(mode_kernels.powers, self.blocks, 1, mode_kernels.base(dtA.numpy()), self.table, N, levels)
        self.spectrum = aligned(self.blocks * self.n * conv_kernels.STEP, self.real)
        arrays = self.table, mode_kernels.lanes((2 * coef).numpy()), flat(D), self.spectrum
        spread(mode_kernels.kernel, self.blocks, 1, *arrays, *self.modes)
        spread(conv_kernels.spectra, self.blocks, 1, self.spectrum, *self.sizes[2:])
        out = new(*self.shape, dtype=signal.dtype)
        arrays = (flat(signal), self.lengths, self.spectrum, flat(out))
        rest = (neuron.kind, self.tau, self.u_r, neuron.network, neuron.sizes)
        spread(conv_kernels.forward, self.blocks * self.pairs, 1, *arrays, *rest, *self.sizes)
        return out

    def backward(
        self, grad: Tensor, signal: Tensor, potential: Tensor, out: Tensor, base: Tensor | None, learnt: bool = False
    ) -> tuple[Tensor | None, ...]:
        """Gradients at the signal (``out``, which may be ``grad``; plus ``base``), coef, dtA, D, tau and u_r.

        ``grad`` is that at the spikes, or at the currents; the last two are None unless something is ``learnt``.
        """
        (c, N, *_), H, neuron = self.modes, self.shape[2], self.neuron
        parts = min(self.pairs, -(-shares() // self.blocks))
        sums = aligned(parts * self.blocks * self.n * conv_kernels.STEP, self.real)
        tally = np.zeros(2 * parts * H if learnt else 0, self.real)
        spread(
            conv_kernels.backward,
            self.blocks * parts,
            1,
            flat(grad),
            flat(signal),
            self.lengths,
            flat(potential),
            flat(out),
            flat(grad if base is None else base),
            base is not None,
            self.spectrum,
            sums,
            parts,
            self.blocks,
            (neuron.kind, neuron.through_time, *neuron.psi),
            self.tau,
            self.u_r,
            tally,
            *self.sizes,
        )
        spread(conv_kernels.kernels, self.blocks, 1, sums, parts, self.blocks, *self.sizes[2:])
        found = aligned(c * 2 * H * 2 * N, self.real)
        spread(mode_kernels.moments, self.blocks, 1, sums, self.table, found, *self.modes)
        zeroth, first = torch.from_numpy(mode_kernels.channels(found, c, 2, H, N)).unbind(1)
        by_D = sums[: self.blocks * self.n * conv_kernels.STEP].reshape(self.blocks, -1)[:, :WIDTH].reshape(-1)
        by_neuron = torch.from_numpy(tally).view(2, parts, H).sum(1).unbind(0) if learnt else (None, None)
        kernel = (2 * zeroth).conj(), (2 * first * self.coef).sum(0).conj(), torch.from_numpy(by_D.copy())
        return out, *kernel, *by_neuron


# ------------------------------------------------------------------------------------------------------------------ mix


class Masks(NamedTuple):
    """Dropout's channel masks ``(B, H)``, or None, and the probability of keeping a channel."""

    before: Tensor | None
    after: Tensor | None
    keep: float

    def arguments(self, x: Tensor) -> tuple:
        if self.before is None or self.after is None:
            nothing = flat(x.new_empty(0))
            return nothing, nothing, nothing.dtype.type(1), False
        before = flat(self.before)
        return before, flat(self.after), before.dtype.type(1 / self.keep), True


class Layout(NamedTuple):
    """W ``(2H, H)`` as the passes of the mix read it, see :func:`models.spike.mix_kernels.lay_out`."""

    rows: np.ndarray
    panels: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, weight: Tensor) -> Layout:
        given, H = flat(weight), weight.shape[1]
        layout = cls(*(aligned(given.size, given.dtype) for _ in cls._fields))
        spread(mix_kernels.lay_out, 2 * H // WIDTH, 4, given, *layout, H)
        return layout


def mix_forward(
    x: Tensor, s: Tensor, graded: bool, weight: Tensor, bias: Tensor, masks: Masks
) -> tuple[Tensor, Layout]:
    """``x + m' ⊙ a σ(b)``, and what the backward pass wants of the weights; s ``(B, L, H)``: potentials before the
    spike, spikes, or ``graded`` values."""
    B, L, H = x.shape
    y, layout = new(B, L, H, dtype=x.dtype), Layout.of(weight)
    arrays = layout.rows, layout.panels, flat(bias), flat(y)
    tasks = B * -(-L // mix_kernels.ROWS)
    spread(mix_kernels.forward, tasks, 1, flat(x), flat(s), graded, *arrays, *masks.arguments(x), L, H)
    return y, layout


def mix_backward(
    grad: Tensor, s: Tensor, graded: bool, layout: Layout, bias: Tensor, masks: Masks
) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient at the sum those at s, weight and bias."""
    B, L, H = grad.shape
    # A share fills a matrix of weights, which pays where it has many more steps than that has rows.
    slots, out = min(shares(), max(torch.get_num_threads(), B * L // (4 * H))), new(B, L, H, dtype=grad.dtype)
    parts, by_weight = aligned(slots * 2 * H * H, layout.rows.dtype), new(2 * H, H, dtype=grad.dtype)
    by_bias = grad.new_zeros(slots, 2 * H)
    arrays = *layout, flat(bias), flat(out), parts, flat(by_bias)
    rest = (*masks.arguments(grad), B, L, H)
    spread(mix_kernels.backward, slots, 1, flat(grad), flat(s), graded, *arrays, slots, *rest)
    spread(mix_kernels.add_up, H // WIDTH, 1, parts, slots, flat(by_weight), H)
    return out, by_weight, by_bias.sum(0)
