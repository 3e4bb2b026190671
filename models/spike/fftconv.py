"""Long convolution by FFT, one- or two-sided, with the skip term inside the kernel.

For a kernel k of one channel::

    y_t = Σ_{s<=t} k_{t-s} u_s + D u_t                                       k (1, H, L)
    y_t = Σ_{s<=t} k⁰_{t-s} u_s + Σ_{s>t} k¹_{s-t-1} u_s + D u_t             k (2, H, L)

The second, bidirectional, is S4's convention. Both directions and D sit in one circular kernel of n >= 2L - 1 points:
k⁰ from the front, k¹ reversed at the back, D added to lag 0. So there is one transform of k, one of u and one back, and
no separate pass for the skip.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sdn.ops import is_transformed

from .once import once, witness

# A CPU takes a few channels at a time, so that their signals and spectra stay in its cache and never exist as a whole.
# Padded samples in a piece, for each thread.
_CPU_PIECE = 1 << 18


def fft_size(length: int) -> int:
    """The smallest even 2^a 3^b 5^c that holds a linear convolution of two signals of ``length``: n >= 2·length - 1."""
    least = max(2 * length - 1, 2)
    best, five = 1 << (least - 1).bit_length(), 1
    while five < best:
        odd = five
        while odd < best:
            best = min(best, odd << max((-(-least // odd) - 1).bit_length(), 1))
            odd *= 3
        five *= 5
    return best


def fftconv(u: Tensor, k: Tensor, D: Tensor | None = None) -> Tensor:
    """Convolve ``u (B, H, L)`` with ``k (1 or 2, H, L)`` and add ``D (H,)`` times u; returns ``(B, H, L)`` contiguous.

    Computed in the dtype of ``k`` (float32 or float64) whatever autocast says.
    """
    if torch.compiler.is_compiling() or is_transformed(u, k, D):
        n = fft_size(u.shape[-1])
        with torch.autocast(u.device.type, enabled=False):
            spectrum = torch.fft.rfft(u.to(k.dtype), n) * torch.fft.rfft(_circular(k, D, n))
            return torch.fft.irfft(spectrum, n)[..., : u.shape[-1]].contiguous()
    return _FFTConv.apply(u, k, D, witness(k))


class _FFTConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, k: Tensor, D: Tensor | None, of_k: Tensor | None) -> Tensor:
        L = u.shape[-1]
        n = fft_size(L)
        kf = torch.empty(k.shape[1], n // 2 + 1, dtype=k.dtype.to_complex(), device=k.device)
        y = torch.empty(u.shape, dtype=k.dtype, device=u.device)
        for channels, some_rows in _pieces(u, n):
            kf[channels] = torch.fft.rfft(_circular(k[:, channels], None if D is None else D[channels], n))
            for rows in some_rows:
                uf = torch.fft.rfft(u[rows, channels].to(k.dtype), n)
                y[rows, channels] = torch.fft.irfft(uf.mul_(kf[channels]), n)[..., :L]
        ctx.save_for_backward(u, kf, D, of_k)
        ctx.directions, ctx.skip = k.shape[0], D is not None
        return y

    @staticmethod
    @once
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, kf, *_ = ctx.saved_tensors
        (_, H, L), n = u.shape, fft_size(u.shape[-1])
        need_u, need_k = ctx.needs_input_grad[0], ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        grad_u = u.new_empty(u.shape) if need_u else None
        # Channels first in memory, as the kernel's own backward pass wants them.
        grad_k = grad.new_empty(H, ctx.directions, L).transpose(0, 1) if need_k else None
        for channels, some_rows in _pieces(u, n):
            kf_conj, grad_kf = torch.conj_physical(kf[channels]), torch.zeros_like(kf[channels])
            for rows in some_rows:
                gf = torch.fft.rfft(grad[rows, channels], n)
                if grad_k is not None:
                    uf = torch.fft.rfft(u[rows, channels].to(grad.dtype), n)
                    grad_kf += uf.conj_physical_().mul_(gf).sum(0)
                if grad_u is not None:
                    grad_u[rows, channels] = torch.fft.irfft(gf.mul_(kf_conj), n)[..., :L]
            if grad_k is not None:
                _from_circular(torch.fft.irfft(grad_kf, n), grad_k[:, channels])
        # k and D meet at lag 0 of the first direction.
        return grad_u, grad_k, grad_k[0, :, 0].clone() if grad_k is not None and ctx.skip else None, None


def _circular(k: Tensor, D: Tensor | None, n: int) -> Tensor:
    """The circular kernel ``(H, n)`` of the module's head."""
    L = k.shape[-1]
    out = k.new_zeros(k.shape[1], n)
    out[:, :L] = k[0]
    if D is not None:
        out[:, 0] += D
    if k.shape[0] == 2:
        out[:, n - L + 1 :] = k[1, :, : L - 1].flip(-1)
    return out


def _from_circular(circular: Tensor, k: Tensor) -> None:
    """Write the parts of ``circular (H, n)`` to where :func:`_circular` took them from, ``k (1 or 2, H, L)``."""
    L, n = k.shape[-1], circular.shape[-1]
    k[0] = circular[:, :L]
    if k.shape[0] == 2:
        k[1, :, : L - 1] = circular[:, n - L + 1 :].flip(-1)
        k[1, :, L - 1] = 0


def _pieces(u: Tensor, n: int) -> Iterator[tuple[slice, list[slice]]]:
    """Channels of ``u (B, H, L)`` to take at once and, for each such slice, the slices of rows."""
    B, H, _ = u.shape
    room = _CPU_PIECE * torch.get_num_threads() // n if u.device.type == "cpu" else B * H
    rows = min(max(room, 1), max(B, 1))
    channels = min(max(room // rows, 1), H)
    for h in range(0, H, channels):
        yield slice(h, h + channels), [slice(b, b + rows) for b in range(0, B, rows)]
