"""The sum over modes behind every S4D kernel, without the (H, N, L) tensor.

For H channels with N modes each (one of every conjugate pair), coefficients C' and exponents dtA = Δ·A::

    K[c, h, l] = 2 Re Σ_n C'[c, h, n] e^{dtA[h, n] l},    l = 0 .. L-1                              (mode_sum)
    S[b, h, n] = Σ_l x[b, h, l] e^{dtA[h, n] (L-1-l)}                                               (mode_project)

The direct form needs L exponentials a mode. With l = i·T + j, T ≈ √L, e^{dtA l} = e^{dtA iT} e^{dtA j}, and the sum is
a real matrix product of (L/T, 2N) by (2N, T) for every channel::

    K[i·T + j] = Σ_n [Re P, -Im P][i, n] · [Re Q; Im Q][n, j],    P = 2 C' e^{dtA iT},  Q = e^{dtA j}

Memory is O(H (N √L + L)). P and Q are built by doubling, Q[k : 2k] = Q[:k] e^{dtA k}, so a mode costs log2(L)
exponentials. T is a power of two: each of them has an exactly scaled exponent dtA·2^m, and the error that is left is
that of log2(L) products (the direct form rounds every phase dtA·l).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sdn.ops import is_transformed

from .once import once


def mode_sum_direct(coef: Tensor, dtA: Tensor, length: int) -> Tensor:
    """The equation as written, ``coef (c, H, N)``, ``dtA (H, N)`` complex -> real ``(c, H, L)``; the truth of tests."""
    exponents = torch.exp(dtA.unsqueeze(-1) * torch.arange(length, device=dtA.device))
    return 2 * torch.einsum("chn,hnl->chl", coef, exponents).real


def mode_sum(coef: Tensor, dtA: Tensor, length: int) -> Tensor:
    """Factored form of :func:`mode_sum_direct`: ``coef (c, H, N)``, ``dtA (H, N)`` complex -> real ``(c, H, L)``.

    Gradients flow to both arguments, once.
    """
    if torch.compiler.is_compiling() or is_transformed(coef, dtA):
        with torch.autocast(coef.device.type, enabled=False):
            return _factored(coef, power_table(dtA, length), length)
    return _ModeSum.apply(coef, dtA, length)


def mode_project(x: Tensor, dtA: Tensor) -> Tensor:
    """What is left in each mode after the inputs ``x (B, H, L)``: ``S (B, H, N)`` complex (see the module's head)."""
    B, H, L = x.shape
    T, rows = _split(L)
    P, Q = _factors(power_table(dtA, L), T, rows)
    x = F.pad(x.flip(-1), (0, rows * T - L)).view(B, H, rows, T).transpose(0, 1).reshape(H, B * rows, T)
    inner = _complex(torch.bmm(x, _real(Q)), H, B, rows, dtA.shape[-1])
    return (inner * P.unsqueeze(1)).sum(2).transpose(0, 1)


def _split(length: int) -> tuple[int, int]:
    """``(T, rows)`` with T a power of two near √L and rows·T >= L."""
    T = 1 << ((max(length, 1) - 1).bit_length() + 1) // 2
    return T, -(-length // T)


def power_table(dtA: Tensor, length: int) -> Tensor:
    """``e^{dtA 2^m}`` for 2^m < L: ``(H, N)`` -> ``(H, M, N)``; by real functions: complex exp is not vectorised."""
    scale = 2.0 ** torch.arange(max((length - 1).bit_length(), 1), dtype=dtA.real.dtype, device=dtA.device)
    scaled = torch.view_as_real(dtA).unsqueeze(1) * scale[:, None, None]
    size, phase = scaled[..., 0].exp(), scaled[..., 1]
    return torch.complex(size * phase.cos(), size * phase.sin())


def _factors(doublings: Tensor, T: int, rows: int, conjugate_Q: bool = False) -> tuple[Tensor, Tensor]:
    """``P = e^{dtA iT} (H, rows, N)`` and ``Q = e^{dtA j} (H, T, N)``."""
    levels = T.bit_length() - 1
    for_Q = doublings[:, :levels]
    return _powers(doublings[:, levels:], rows), _powers(for_Q.conj().resolve_conj() if conjugate_Q else for_Q, T)


def _powers(doublings: Tensor, count: int) -> Tensor:
    """``z^j`` for j < count from ``z^{2^m} (H, M, N)``: ``(H, count, N)``."""
    H, _, N = doublings.shape
    # The same without writing in place, which autograd could not follow.
    if torch.compiler.is_compiling() or is_transformed(doublings):
        out = doublings.new_ones(H, 1, N)
        for m in range((count - 1).bit_length()):
            out = torch.cat((out, out * doublings[:, m : m + 1]), 1)
        return out[:, :count]
    out = doublings.new_empty(H, count, N)
    out[:, 0] = 1
    for m in range((count - 1).bit_length()):
        done = 1 << m
        more = min(done, count - done)
        torch.mul(out[:, :more], doublings[:, m : m + 1], out=out[:, done : done + more])
    return out


def _real(z: Tensor) -> Tensor:
    """``(..., N)`` complex seen as ``(..., 2N)`` real, (re, im) interleaved; no copy."""
    return torch.view_as_real(z).flatten(-2)


def _complex(x: Tensor, *shape: int) -> Tensor:
    """``(..., 2N)`` real seen as ``shape`` complex; no copy."""
    return torch.view_as_complex(x.view(*shape, 2))


def _factored(coef: Tensor, doublings: Tensor, length: int) -> Tensor:
    """:func:`mode_sum` from the doublings. Only Q is conjugated: K = [Re, Im](2 C' P) · [Re, Im](conj Q)."""
    (c, H, _), (T, rows) = coef.shape, _split(length)
    P, Q = _factors(doublings, T, rows, conjugate_Q=True)
    K = torch.bmm(_weighted(coef, P), _real(Q).transpose(1, 2))
    return K.view(H, c, rows * T)[..., :length].transpose(0, 1)


class _ModeSum(torch.autograd.Function):
    """:func:`_factored` with a backward pass of the same few small products, nothing of size N √L kept for it."""

    @staticmethod
    def forward(ctx, coef: Tensor, dtA: Tensor, length: int) -> Tensor:
        with torch.autocast(coef.device.type, enabled=False):
            doublings = power_table(dtA, length)
            K = _factored(coef, doublings, length)
        ctx.save_for_backward(coef, doublings, dtA)
        ctx.length = length
        return K

    @staticmethod
    @once
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        coef, doublings, _ = ctx.saved_tensors
        c, H, N = coef.shape
        T, rows = _split(ctx.length)
        G, missing = grad.transpose(0, 1), rows * T - ctx.length
        G = (F.pad(G, (0, missing)) if missing else G.contiguous()).view(H, c * rows, T)
        with torch.autocast(coef.device.type, enabled=False):
            P, Q = _factors(doublings, T, rows)
            by_i = _complex(torch.bmm(G, _real(Q)), H, c, rows, N).mul_(P.unsqueeze(1))
            by_j = _complex(torch.bmm(G.transpose(1, 2), _weighted(coef, P)), H, T, N).mul_(Q)
            # d/dC' takes Σ_i of by_i, d/ddtA takes Σ_i iT of the same: both as one small matrix product.
            moments = torch.stack((grad.new_ones(rows), T * torch.arange(rows).to(grad)))
            zeroth, first = _complex(torch.matmul(moments, _real(by_i)), H, c, 2, N).unbind(2)
            last = _complex(torch.matmul(torch.arange(T).to(grad), _real(by_j)), H, N)
            grad_dtA = (2 * first * coef.transpose(0, 1)).sum(1) + last
        return (2 * zeroth).transpose(0, 1).conj(), grad_dtA.conj(), None


def _weighted(coef: Tensor, P: Tensor) -> Tensor:
    """``2 C' P`` of every direction, ``(c, H, N)`` and ``(H, rows, N)`` -> ``(H, c·rows, 2N)`` real."""
    return _real((2 * coef).transpose(0, 1).unsqueeze(2) * P.unsqueeze(1)).flatten(1, 2)
