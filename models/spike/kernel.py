"""The sum over modes behind every S4D kernel, without the (H, N, L) tensor.

For H channels with N modes each (one of every conjugate pair), coefficients C' and exponents dtA = Δ·A::

    K[c, h, l] = 2 Re Σ_n C'[c, h, n] e^{dtA[h, n] l},    l = 0 .. L-1                              (mode_sum)
    S[b, h, n] = Σ_l x[b, h, l] e^{dtA[h, n] (L-1-l)}                                               (mode_project)

The direct form needs L exponentials a mode. With l = i·T + j, T ≈ √L, e^{dtA l} = e^{dtA iT} e^{dtA j}, and the sum is a
real matrix product of (L/T, 2N) by (2N, T) for every channel::

    K[i·T + j] = Σ_n [Re P, -Im P][i, n] · [Re Q; Im Q][n, j],    P = 2 C' e^{dtA iT},  Q = e^{dtA j}

Memory is O(H (N √L + L)). The powers P and Q are built by doubling, Q[k : 2k] = Q[:k] e^{dtA k}: only log2 of their number
are exponentials. T is a power of two, so every exponent dtA·2^m is exact and the rounding error is that of log2(L)
products (the direct form rounds each phase dtA·l).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mode_sum_direct(coef: Tensor, dtA: Tensor, length: int) -> Tensor:
    """The equation as written, ``coef (c, H, N)``, ``dtA (H, N)`` complex -> real ``(c, H, L)``: the truth for tests."""
    exponents = torch.exp(dtA.unsqueeze(-1) * torch.arange(length, device=dtA.device))
    return 2 * torch.einsum("chn,hnl->chl", coef, exponents).real


def mode_sum(coef: Tensor, dtA: Tensor, length: int) -> Tensor:
    """Factored form of :func:`mode_sum_direct`: ``coef (c, H, N)``, ``dtA (H, N)`` complex -> real ``(c, H, L)``.

    Gradients flow to both arguments, once.
    """
    return _ModeSum.apply(coef, dtA, length)


def mode_project(x: Tensor, dtA: Tensor) -> Tensor:
    """What is left in each mode after the inputs ``x (B, H, L)``: ``S (B, H, N)`` complex (see the module's head)."""
    B, H, L = x.shape
    T, rows = _split(L)
    x = torch.nn.functional.pad(x.flip(-1), (0, rows * T - L)).view(B, H, rows, T)
    x = x.transpose(0, 1).reshape(H, B * rows, T)
    inner = torch.view_as_complex(torch.bmm(x, _real(_powers(dtA, T))).view(H, B, rows, -1, 2))
    return (inner * _powers(dtA, rows, T).unsqueeze(1)).sum(2).transpose(0, 1)


def _split(length: int) -> tuple[int, int]:
    """``(T, rows)`` with T a power of two near √L and rows·T >= L."""
    T = 1 << round(math.log2(max(length, 1)) / 2)
    return T, -(-length // T)


def _powers(dtA: Tensor, count: int, stride: int = 1) -> Tensor:
    """``e^{dtA · stride · j}`` for j < count: ``(H, N)`` -> ``(H, count, N)``."""
    out = dtA.new_empty(dtA.shape[0], count, dtA.shape[1])
    out[:, 0] = 1
    done = 1
    while done < count:
        more = min(done, count - done)
        torch.mul(out[:, :more], torch.exp(dtA * (stride * done)).unsqueeze(1), out=out[:, done : done + more])
        done += more
    return out


def _real(z: Tensor) -> Tensor:
    """``(..., N)`` complex seen as ``(..., 2N)`` real, (re, im) interleaved; no copy."""
    return torch.view_as_real(z).flatten(-2)


def _complex(x: Tensor, *shape: int) -> Tensor:
    return torch.view_as_complex(x.view(*shape, 2))


class _ModeSum(torch.autograd.Function):
    """Conjugated on the left: with a = 2 conj(C') and P* = e^{conj(dtA) iT}, [Re, Im](a P*) · [Re, Im](Q) has no signs."""

    @staticmethod
    def forward(ctx, coef: Tensor, dtA: Tensor, length: int) -> Tensor:
        ctx.save_for_backward(coef, dtA)
        ctx.length = length
        c, H, _ = coef.shape
        T, rows = _split(length)
        with torch.autocast(coef.device.type, enabled=False):
            Q = _real(_powers(dtA, T))
            W = _real(_weights(coef) * _powers(dtA.conj().resolve_conj(), rows, T).unsqueeze(1)).flatten(1, 2)
            K = torch.bmm(W, Q.transpose(1, 2))
        return K.view(H, c, rows * T)[..., :length].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        coef, dtA = ctx.saved_tensors
        c, H, N = coef.shape
        T, rows = _split(ctx.length)
        with torch.autocast(coef.device.type, enabled=False):
            Q, P = _powers(dtA, T), _powers(dtA.conj().resolve_conj(), rows, T).unsqueeze(1)
            a = _weights(coef)
            G = torch.nn.functional.pad(grad.transpose(0, 1), (0, rows * T - ctx.length)).reshape(H, c * rows, T)
            grad_W = _complex(torch.bmm(G, _real(Q)), H, c, rows, N)
            grad_Q = _complex(torch.bmm(G.transpose(1, 2), _real(a * P).flatten(1, 2)), H, T, N)
            # d/dcoef = Σ_i and d/ddtA = Σ_i iT of the same products: both sums as one small matrix product.
            moments = torch.stack((grad.new_ones(rows), T * torch.arange(rows).to(grad)))
            by_i = _complex(torch.matmul(moments, _real(grad_W * P.conj())), H, c, 2, N).conj()
            by_j = _complex(torch.matmul(torch.arange(T).to(grad), _real(grad_Q * Q.conj())), H, N)
            grad_coef = 2 * by_i[:, :, 0].transpose(0, 1)
            grad_dtA = (by_i[:, :, 1] * a.squeeze(2)).sum(1) + by_j
        return grad_coef, grad_dtA, None


def _weights(coef: Tensor) -> Tensor:
    """``2 conj(coef)``, ``(c, H, N)`` -> ``(H, c, 1, N)``."""
    return (2 * coef.conj()).resolve_conj().transpose(0, 1).unsqueeze(2)
