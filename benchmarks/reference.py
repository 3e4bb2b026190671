"""The reference composition: neurons and layer put together from plain PyTorch calls, as the released code does.

Eager SDN of three convolutions with eight-channel temporaries, S4D kernel through the (H, N/2, L) tensor, a
separate pass for the threshold, dropout tied over time, 1x1 convolution, GLU. It is what the speed-ups of the
benchmark tables are measured against, and nothing else uses it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdn.fitting.construct import construct
from sdn.network import ReducedSDN
from sdn.surrogate import spike


def released_size(tau: float) -> ReducedSDN:
    """An SDN of the released one's size (one layer, 8 channels, window 8); what it costs hangs on nothing else."""
    return construct(tau).float()


class EagerSDN(nn.Module):
    """s = H(mem + I - 1), mem from three convolutions over ``(B H, 1, L)``."""

    def __init__(self, sdn: ReducedSDN) -> None:
        super().__init__()
        d, self.k = sdn.conv_weight.shape
        self.register_buffer("w1", sdn.conv_weight.detach().clone().view(d, 1, self.k))
        self.register_buffer("b1", sdn.conv_bias.detach().clone())
        skip = torch.eye(d, dtype=sdn.mix_weight.dtype, device=sdn.mix_weight.device)
        self.register_buffer("w2", (sdn.mix_weight.detach() - skip).view(d, d, 1))
        self.register_buffer("b2", sdn.mix_bias.detach().clone())
        self.register_buffer("w3", sdn.out_weight.detach().clone().view(1, d, 1))
        self.register_buffer("b3", sdn.out_bias.detach().clone().view(1))

    def forward(self, current: Tensor) -> Tensor:
        L = current.shape[-1]
        with torch.no_grad():
            x = current.reshape(-1, 1, L)
            a = F.relu(F.conv1d(x, self.w1, self.b1, padding=self.k)[..., :L])
            b = F.relu(F.conv1d(a, self.w2, self.b2) + a)
            mem = F.conv1d(b, self.w3, self.b3).view_as(current)
        return spike(mem + current - 1)


class ReferenceLayer(nn.Module):
    """One residual layer on ``(B, H, L)``, without norm (the released post-norm never acts).

    The twin without spikes, ``spiking=False``, has no threshold, and a layer norm before all else.
    """

    def __init__(
        self, H: int, N: int, neuron: nn.Module, bidirectional: bool, dropout: float, spiking: bool = True
    ) -> None:
        super().__init__()
        self.neuron, self.bidirectional, self.p, self.spiking = neuron, bidirectional, dropout, spiking
        if not spiking:
            self.norm = nn.LayerNorm(H)
        log_dt = torch.rand(H) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(torch.full((H, N // 2), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(N // 2).repeat(H, 1))
        C = torch.randn(1 + bidirectional, H, N // 2, dtype=torch.cfloat)
        self.C = nn.Parameter(torch.view_as_real(C))
        self.D = nn.Parameter(torch.randn(H))
        self.ln_vth = nn.Parameter(torch.zeros(H, 1))
        self.mix = nn.Conv1d(H, 2 * H, 1)

    def kernel(self, L: int) -> Tensor:
        """(directions, H, L) through the full Vandermonde tensor."""
        A = -self.log_A_real.exp() + 1j * self.A_imag
        dtA = A * self.log_dt.exp()[:, None]
        C = torch.view_as_complex(self.C) * ((dtA.exp() - 1) / A)
        powers = torch.exp(dtA[..., None] * torch.arange(L, device=dtA.device))
        return 2 * torch.einsum("chn,hnl->chl", C, powers).real

    def forward(self, x: Tensor) -> Tensor:
        skip, L = x, x.shape[-1]
        if not self.spiking:
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        k = self.kernel(L)
        k = F.pad(k[0], (0, L)) + F.pad(k[1].flip(-1), (L, 0)) if self.bidirectional else k[0]
        y = torch.fft.irfft(torch.fft.rfft(x, n=2 * L) * torch.fft.rfft(k, n=2 * L), n=2 * L)[..., :L]
        y = y + self.D[:, None] * x
        s = self._dropout(self.neuron(y / self.ln_vth.exp() if self.spiking else y))
        return skip + self._dropout(F.glu(self.mix(s), dim=1))

    def _dropout(self, x: Tensor) -> Tensor:
        if not self.p or not self.training:
            return x
        mask = torch.rand(*x.shape[:2], 1, device=x.device) >= self.p
        return x * mask / (1 - self.p)


class ReferenceNetwork(nn.Module):
    """A stack of :class:`ReferenceLayer` on ``(B, L, H)``."""

    def __init__(
        self,
        n_layers: int,
        H: int,
        N: int,
        neuron: nn.Module,
        bidirectional: bool = False,
        dropout: float = 0.0,
        spiking: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ReferenceLayer(H, N, neuron, bidirectional, dropout, spiking) for _ in range(n_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)
