"""Kernels on the CPU, by numba: plans of which lanes to run, and the way from tensors to arrays and back.

Signatures as in :mod:`sdn.kernels`. Where there are fewer rows than lanes, time is cut into stretches that run at once
from a guessed potential, are checked against the potential reached and run again where the guess was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..surrogate import TRIANGLE, Surrogate
from . import SEAM, cpu_lif, cpu_lif_grad, cpu_sdn
from .cpu_psi import psi_arguments
from .cpu_tile import BLOCK, LANES
from .threads import spread

assert BLOCK == SEAM

_HALF = (torch.bfloat16, torch.float16)
_HALF_STEPS = 1 << 18
"""Half precision tensors pass through a float32 copy of so many steps at a time, which stays in the cache."""


_FORGOTTEN = 1e-20
"""What a gradient may be multiplied by to count as nothing."""


def _new(like: Tensor) -> Tensor:
    """An uninitialised tensor of the shape and type of ``like``, from numpy.

    numpy asks the system for huge pages; torch does not, and touching its memory first would cost more than a kernel.
    """
    if like.dtype in _HALF:
        return torch.from_numpy(np.empty(like.shape, np.int16)).view(like.dtype)
    return torch.from_numpy(np.empty(like.shape, _array(like).dtype))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().view(-1).numpy()


def _blocks(I: Tensor, H: int) -> Iterator[slice]:
    """Slices of rows, whole samples of ``H`` channels, that are converted together."""
    rows = max(1, _HALF_STEPS // max(1, I.shape[1] * H)) * H
    for first in range(0, I.shape[0], rows):
        yield slice(first, first + rows)


def stretches(rows: int, steps: int, threads: int) -> tuple[int, int]:
    """``(n, blocks)``: cut each row into n stretches of so many blocks, to fill the lanes; n = 1: do not cut.

    Measured on two cores: fewer than 4 stretches a row, or fewer than 4096 steps, gain nothing; one row of 65536 steps
    gains 7 times forwards, 9 backwards, eight such rows 2 and 3 times.
    """
    whole = steps // BLOCK
    wanted = min(whole, threads * LANES // max(1, rows))
    if wanted < 4 or steps < 4096:
        return 1, whole
    blocks = whole // wanted
    return whole // blocks, blocks


def lif_forward(
    I: Tensor, tau: Tensor, v_th: Tensor | None, u_r: Tensor, soft: bool, u0: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    R, L = I.shape
    s = _new(I)
    u = torch.zeros(R, dtype=tau.dtype) if u0 is None else u0.to(tau.dtype, copy=True).contiguous()
    seams = torch.empty(R, -(-L // BLOCK), dtype=tau.dtype)
    if I.dtype in _HALF:
        for rows in _blocks(I, len(tau)):
            block = I[rows].float()
            spikes = torch.empty_like(block)
            _forward(block, spikes, seams[rows], u[rows], tau, v_th, u_r, soft)
            s[rows] = spikes
    else:
        _forward(I, s, seams, u, tau, v_th, u_r, soft)
    return s, u, seams


def _neuron(
    tau: Tensor, v_th: Tensor | None, u_r: Tensor, soft: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    return _array(tau), _array(tau.new_empty(0) if v_th is None else v_th), _array(u_r), soft


def _forward(I, s, seams, u, tau, v_th, u_r, soft) -> int:
    """Fill s, seams and u; returns the number of blocks that had to be run again."""
    (R, L), again = I.shape, 0
    flat, arrays, neuron = (_flat(I), _flat(s)), (_array(seams), _array(u)), _neuron(tau, v_th, u_r, soft)
    n, blocks = stretches(R, L, torch.get_num_threads())
    if n > 1:
        ends = np.empty((R, n), arrays[1].dtype)
        rest = (ends, *neuron, L, blocks)
        spread(cpu_lif.speculate, R * n, LANES, *flat, *arrays, *rest)
        again = cpu_lif.repair(0, R, *flat, *arrays, *rest)
    begin = n * blocks * BLOCK if n > 1 else 0
    spread(cpu_lif.forward, R, LANES, *flat, *arrays, *neuron, L, begin, L)
    return again


def lif_backward(
    grad: Tensor,
    I: Tensor,
    seams: Tensor,
    tau: Tensor,
    v_th: Tensor | None,
    u_r: Tensor,
    soft: bool,
    through_time: bool,
    want_sums: bool,
    surrogate: Surrogate = TRIANGLE,
) -> tuple[Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    out = _new(I)
    sums = tau.new_zeros(3, I.shape[0] if want_sums else 0)
    neuron = (tau, v_th, u_r, soft)
    if I.dtype in _HALF:
        for rows in _blocks(I, len(tau)):
            block = I[rows].float()
            part = torch.empty_like(block)
            _backward(grad[rows].float(), block, part, seams[rows], sums[:, rows], *neuron, through_time, surrogate)
            out[rows] = part
    else:
        _backward(grad, I, out, seams, sums, *neuron, through_time, surrogate)
    return out, sums


def _backward(grad, I, out, seams, sums, tau, v_th, u_r, soft, through_time, surrogate) -> None:
    (R, L), sums = I.shape, _array(sums)
    carry = np.zeros(R, _array(tau).dtype)
    tensors = (_flat(I), _flat(grad), _flat(out), _array(seams), carry)
    neuron, psi = (*_neuron(tau, v_th, u_r, soft), through_time, L), psi_arguments(surrogate, carry.dtype)

    def run(begin: int, span: int, n: int) -> None:
        parts = np.zeros((3, R, n) if sums.size else (0, 0, 0), carry.dtype)
        spread(cpu_lif_grad.backward, R * n, LANES, *tensors, parts, *neuron, begin, span, n, *psi)
        if sums.size:
            sums[...] += parts.sum(-1)

    n, blocks = 1, 0
    if not through_time:
        n, blocks = L // BLOCK, 1
    elif R and float(tau.max()) ** BLOCK < _FORGOTTEN:
        n, blocks = stretches(R, L, torch.get_num_threads())
    cut = n * blocks * BLOCK if n > 1 else 0
    run(cut, L - cut, 1)
    if n > 1:
        run(0, blocks * BLOCK, n)


def sdn_forward(
    I: Tensor,
    v_th: Tensor | None,
    weights: Tensor,
    sizes: tuple[int, int, int],
    keep_mem: bool,
) -> tuple[Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    s, mem = _new(I), _new(weights.new_empty(1).expand(I.shape if keep_mem else (0, I.shape[1])))

    def run(current: Tensor, spikes: Tensor, kept: Tensor) -> None:
        R, L = current.shape
        threshold = _array(weights.new_empty(0) if v_th is None else v_th)
        arrays = _flat(current), _flat(spikes), _flat(kept), threshold, _flat(weights)
        spread(cpu_sdn.forward, R, 1, *arrays, *sizes, L)

    if I.dtype in _HALF:
        for rows in _blocks(I, 1 if v_th is None else len(v_th)):
            block = I[rows].float()
            spikes = torch.empty_like(block)
            run(block, spikes, mem[rows])
            s[rows] = spikes
    else:
        run(I, s, mem)
    return s, mem


def sdn_backward(
    grad: Tensor, I: Tensor, mem: Tensor, v_th: Tensor | None, want_sums: bool, surrogate: Surrogate = TRIANGLE
) -> tuple[Tensor, Tensor]:
    """See :mod:`sdn.kernels`."""
    out = _new(I)
    sums = mem.new_zeros(I.shape[0] if want_sums else 0)
    threshold = _array(mem.new_empty(0) if v_th is None else v_th)
    psi = psi_arguments(surrogate, threshold.dtype)

    def run(grad: Tensor, current: Tensor, target: Tensor, kept: Tensor, parts: Tensor) -> None:
        arrays = [_flat(tensor) for tensor in (current, grad, target, kept)]
        spread(cpu_sdn.backward, current.shape[0], 1, *arrays, threshold, _array(parts), current.shape[1], *psi)

    if I.dtype in _HALF:
        for rows in _blocks(I, 1 if v_th is None else len(v_th)):
            target = mem.new_empty(I[rows].shape)
            run(grad[rows].float(), I[rows].float(), target, mem[rows], sums[rows])
            out[rows] = target
    else:
        run(grad, I, out, mem, sums)
    return out, sums
