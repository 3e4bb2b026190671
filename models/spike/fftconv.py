"""Long convolution by FFT, one- or two-sided, with the skip term inside the kernel.

For a kernel k of one channel::

    y_t = Σ_{s<=t} k_{t-s} u_s + D u_t                                       k (1, H, L)
    y_t = Σ_{s<=t} k⁰_{t-s} u_s + Σ_{s>t} k¹_{s-t-1} u_s + D u_t             k (2, H, L)

The second, bidirectional, is S4's convention. Both directions and D sit in one circular kernel of n >= 2L - 1 points:
k⁰ from the front, k¹ reversed at the back, D added to lag 0. So there is one transform of k, one of u and one back, and
no separate pass for the skip.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# On a CPU the rows of a batch are transformed a few at a time: a spectrum is multiplied while it is in the cache, and
# only a piece of it is alive. Elements of the padded signal.
_CPU_PIECE = 1 << 20


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
    return _FFTConv.apply(u, k, D)


class _FFTConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, k: Tensor, D: Tensor | None) -> Tensor:
        n = fft_size(u.shape[-1])
        kf = torch.fft.rfft(_circular(k, D, n))
        ctx.save_for_backward(u, kf)
        ctx.directions, ctx.skip = k.shape[0], D is not None
        y = u.new_empty(u.shape, dtype=k.dtype)
        for rows in _pieces(u, n):
            uf = torch.fft.rfft(u[rows].to(k.dtype), n)
            y[rows] = torch.fft.irfft(uf.mul_(kf), n)[..., : u.shape[-1]]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        u, kf = ctx.saved_tensors
        L, n = u.shape[-1], fft_size(u.shape[-1])
        need_u, need_k = ctx.needs_input_grad[0], ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        grad_u = u.new_empty(u.shape) if need_u else None
        kf_conj = torch.conj_physical(kf)
        grad_kf = torch.zeros_like(kf) if need_k else None
        for rows in _pieces(u, n):
            gf = torch.fft.rfft(grad[rows], n)
            if need_k:
                uf = torch.fft.rfft(u[rows].to(grad.dtype), n).conj_physical_()
                for one_uf, one_gf in zip(uf, gf, strict=True):
                    grad_kf.addcmul_(one_uf, one_gf)
            if need_u:
                grad_u[rows] = torch.fft.irfft(gf.mul_(kf_conj), n)[..., :L]
        if not need_k:
            return grad_u, None, None
        circular = torch.fft.irfft(grad_kf, n)
        # Channels first in memory, as the kernel's own backward pass wants them.
        grad_k = circular.new_zeros(u.shape[1], ctx.directions, L).transpose(0, 1)
        grad_k[0] = circular[:, :L]
        if ctx.directions == 2:
            grad_k[1, :, : L - 1] = circular[:, n - L + 1 :].flip(-1)
        return grad_u, grad_k, circular[:, 0] if ctx.skip else None


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


def _pieces(u: Tensor, n: int) -> list[slice]:
    B, H, _ = u.shape
    size = max(1, _CPU_PIECE // (H * n)) if u.device.type == "cpu" else max(B, 1)
    return [slice(start, start + size) for start in range(0, B, size)]
