"""The four kernels on a CUDA device, launched through Triton; see the package's docstring for what they compute.

Importing this module imports Triton, and raises ImportError where Triton is missing or older than 3.3 (it came with
PyTorch 2.7): earlier compilers abort on the bfloat16 backward kernels and spill the others through shared memory.
The device code is in ``gpu_tile``, ``gpu_lif``, ``gpu_lif_grad`` and ``gpu_sdn``.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
from torch import Tensor

from ..surrogate import TRIANGLE, Surrogate
from . import SEAM

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
    raise ImportError(f"the CUDA kernels need Triton 3.3 or newer, not {triton.__version__}")

from .gpu_lif import lif_guess, lif_repair, lif_settle
from .gpu_lif_grad import lif_back, lif_back_local
from .gpu_sdn import sdn_back, sdn_spikes
from .gpu_tile import ROWS, TILE

EARLY = 64
"""Steps a chunk starts early: two starts with the same spikes are one number after 25 steps at tau = 1/2."""
CHUNK = 512
"""Shortest chunk of the forward pass, so that starting early costs at most an eighth."""
WARPS = 8
"""Warps a multiprocessor should have: 32 lanes with 64 bytes in flight each, twice what hides the memory's latency."""
EXACT = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}
"""Launch options of the exact kernels: a warp a program; loads ahead are written out; no fused multiply-add."""


def _real(I: Tensor) -> torch.dtype:
    return torch.float64 if I.dtype == torch.float64 else torch.float32


def _on(I: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be that of its arguments."""
    return torch.cuda.device(I.device) if I.is_cuda else contextlib.nullcontext()


def _chunk(I: Tensor, shortest: int) -> int:
    """Steps of a chunk: all of L where the rows alone give every multiprocessor enough warps."""
    rows, steps = I.shape
    processors = torch.cuda.get_device_properties(I.device).multi_processor_count if I.is_cuda else 1
    chunks = max(1, WARPS * processors * ROWS.value // rows)
    return max(shortest, triton.cdiv(triton.cdiv(steps, chunks), SEAM) * SEAM)


def _neuron(tau: Tensor, v_th: Tensor | None, u_r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernels read per channel; a threshold of None is never used, but a pointer has to point somewhere."""
    tau = tau.contiguous()
    return tau, tau if v_th is None else v_th.contiguous(), u_r.contiguous()


def _threshold(I: Tensor, v_th: Tensor | None) -> tuple[Tensor, int, bool]:
    return (I, 1, False) if v_th is None else (v_th.contiguous(), v_th.numel(), True)


def _options(I: Tensor, v_th: Tensor | None, soft: bool) -> dict[str, Any]:
    return {"SCALED": v_th is not None, "SOFT": soft, "RAGGED": I.shape[1] % TILE.value != 0, "SEAM": SEAM, **EXACT}


def _psi(surrogate: Surrogate) -> dict[str, Any]:
    return {"PSI": surrogate.name, "SHARP": 1 / surrogate.width}


def lif_forward(
    I: Tensor, tau: Tensor, v_th: Tensor | None, u_r: Tensor, soft: bool, u0: Tensor | None, chunk: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``(s, u, seams)``; ``chunk``: steps of a chunk, a multiple of SEAM (default: what fills the device)."""
    R, L = I.shape
    s = torch.empty_like(I)
    seams = torch.empty(R, triton.cdiv(L, SEAM), dtype=_real(I), device=I.device)
    if not I.numel():
        u = torch.zeros(R, dtype=_real(I), device=I.device) if u0 is None else u0.clone()
        return s, u, seams
    chunk = chunk or _chunk(I, CHUNK)
    chunks, tiles = triton.cdiv(L, chunk), triton.cdiv(R, ROWS.value)
    tensors, neuron, sizes = (I, s, seams), _neuron(tau, v_th, u_r), (R, tau.numel(), L, chunk)
    start = {"FROM_ZERO": u0 is None, "EARLY": EARLY if chunks > 1 else 0}
    options = _options(I, v_th, soft)
    u = seams.new_empty(R)
    assumed, reached, now = seams.new_empty(3, chunks, R) if chunks > 1 else (u, u, u)
    with _on(I):
        lif_guess[tiles, chunks](
            *tensors, assumed, reached, *neuron, tau if u0 is None else u0.contiguous(), *sizes, **start, **options
        )
        if chunks > 1:
            lif_repair[tiles, chunks](*tensors, assumed, reached, now, *neuron, *sizes, **options)
            lif_settle[tiles,](*tensors, assumed, now, u, *neuron, *sizes, chunks, **options)
    return s, u, seams


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
    chunk: int | None = None,
    surrogate: Surrogate = TRIANGLE,
) -> tuple[Tensor, Tensor]:
    """``(dI, sums)``; ``chunk`` as in :func:`lif_forward`. The sums are taken in a fixed order."""
    R, L = I.shape
    dI = torch.empty_like(I)
    if not I.numel():
        return dI, seams.new_zeros(3, R if want_sums else 0)
    chunk = chunk or _chunk(I, SEAM)
    chunks, tiles = triton.cdiv(L, chunk), triton.cdiv(R, ROWS.value)
    sums = seams.new_empty(chunks, 3, R if want_sums else 0)
    grad, neuron, sizes = grad.contiguous(), _neuron(tau, v_th, u_r), (R, tau.numel(), L, chunk)
    options = {"SUMS": want_sums, **_psi(surrogate), **_options(I, v_th, soft)}
    with _on(I):
        if not through_time:
            lif_back_local[tiles, chunks](grad, I, seams, dI, sums, *neuron, *sizes, **options)
        else:
            offset, slope = seams.new_empty(2, chunks, R)
            arguments = (grad, I, seams, offset, slope, dI, sums, *neuron, *sizes, chunks)
            if chunks > 1:
                lif_back[tiles, chunks](*arguments, ENDS=True, **options)
            lif_back[tiles, chunks](*arguments, ENDS=False, **options)
    return dI, sums.sum(0)


def _warps(steps: int) -> int:
    return max(1, min(4, steps // 128))


def sdn_forward(
    I: Tensor,
    v_th: Tensor | None,
    weights: Tensor,
    sizes: tuple[int, int, int],
    keep_mem: bool,
) -> tuple[Tensor, Tensor]:
    """``(s, mem)``."""
    R, L = I.shape
    d, k, layers = sizes
    s = torch.empty_like(I)
    mem = torch.empty(R if keep_mem else 0, L, dtype=_real(I), device=I.device)
    if not I.numel():
        return s, mem
    D, K = triton.next_power_of_2(d), triton.next_power_of_2(k)
    # A thread keeps D + K numbers a step and layer in registers: 8 steps at d = k = 8, fewer for wider networks, a
    # quarter with two layers.
    steps = min(128 // layers * max(1, min(8, 64 // (max(D, K) * layers))), max(32, triton.next_power_of_2(L)))
    threshold, H, scaled = _threshold(I, v_th)
    with _on(I):
        sdn_spikes[R, triton.cdiv(L, steps)](
            I, threshold, weights.contiguous(), s, mem, H, L, d, k,
            SCALED=scaled, KEEP=keep_mem, LAYERS=layers, D=D, K=K, STEPS=steps, num_warps=_warps(steps * layers),
        )  # fmt: skip
    return s, mem


def sdn_backward(
    grad: Tensor, I: Tensor, mem: Tensor, v_th: Tensor | None, want_sums: bool, surrogate: Surrogate = TRIANGLE
) -> tuple[Tensor, Tensor]:
    """``(dI, sums)``; the sums are taken in a fixed order."""
    R, L = I.shape
    dI = torch.empty_like(I)
    if not I.numel():
        return dI, mem.new_zeros(R if want_sums else 0)
    chunk, steps = 4096, min(1024, max(32, triton.next_power_of_2(L)))
    chunks = triton.cdiv(L, chunk)
    sums = mem.new_empty(chunks, R if want_sums else 0)
    threshold, H, scaled = _threshold(I, v_th)
    with _on(I):
        sdn_back[R, chunks](
            grad.contiguous(), I, mem, threshold, dI, sums, R, H, L, chunk,
            SCALED=scaled, SUMS=want_sums, STEPS=steps, num_warps=_warps(steps), **_psi(surrogate),
        )  # fmt: skip
    return dI, sums.sum(0)
