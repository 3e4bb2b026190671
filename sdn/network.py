"""The surrogate dynamic network: a few convolutions that predict a neuron's potential for all time steps at once.

With kernel size k, d channels, h = encoder(x) and per layer (c: channel; BN: batch norm)::

    a[c, t] = relu(BN(sum_j dw[c, j] h[c, t - k + j] + b[c]))      depthwise, causal
    h[:, t] = relu(BN(P a[:, t] + p) + a[:, t])                    pointwise with skip
    mem[t]  = w . h[:, t] + w0                                     decoder

The first layer's window ends at t - 1, so mem_t depends on x_{t-k} .. x_{t-1} only; deeper layers may look at t.
What lies before the first input is zero: mem_0 comes from the biases alone.

:class:`SDN` is what is fitted (193 weights at d = 8, k = 8); :class:`ReducedSDN` is the same function with everything
linear multiplied out (153 weights; 151 with two layers at d = 6, k = 4), made by :func:`sdn.fitting.reduce.reduce`
and used inside spiking networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from .errors import UserError
from .lif import check_tau
from .typed import BiasedConv1d, Modules, TrackingBatchNorm1d


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} of an SDN must be a whole number of at least 1, not {value!r}")


class SDNLayer(nn.Module):
    """Depthwise causal convolution, batch norm, ReLU, then pointwise mix, batch norm, skip, ReLU.

    Channels come first, ``(d, N, L)``: every product is then one of a small matrix with long contiguous rows,
    on a CPU 2 to 3 times as fast as convolutions of ``(N, d, L)``. ``shift`` = 1 ends the window at t - 1.
    """

    def __init__(self, d_model: int, kernel_size: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.depthwise = BiasedConv1d(d_model, d_model, kernel_size, groups=d_model)
        self.depthwise_norm = TrackingBatchNorm1d(d_model)
        self.pointwise = BiasedConv1d(d_model, d_model, 1)
        self.pointwise_norm = TrackingBatchNorm1d(d_model)

    def windows(self, h: Tensor) -> Tensor:
        """The inputs in the window of every step, ``(..., L)`` -> ``(k, ..., L)``; the oldest first, zeros before."""
        (k,), length = self.depthwise.kernel_size, h.shape[-1]
        before = pad(h, (k - 1 + self.shift, 0))
        return torch.stack([before[..., j : j + length] for j in range(k)])

    def mix(self, a: Tensor) -> Tensor:
        """From the output of the depthwise convolution to that of the layer, both ``(d, N, L)``."""
        a = torch.relu(_norm(self.depthwise_norm, a.flatten(1)))
        mixed = torch.addmm(self.pointwise.bias[:, None], self.pointwise.weight[..., 0], a)
        return torch.relu(_norm(self.pointwise_norm, mixed) + a)

    def forward(self, h: Tensor) -> Tensor:
        weight = self.depthwise.weight[:, 0].T[:, :, None, None]
        a = (self.windows(h) * weight).sum(0) + self.depthwise.bias[:, None, None]
        return self.mix(a).view(h.shape)

    def encode(self, x: Tensor, encoder: Tensor) -> Tensor:
        """The same for h = ``encoder (d,)`` times x ``(N, L)``, with both linear maps in one product."""
        weight = self.depthwise.weight[:, 0] * encoder[:, None]
        a = torch.addmm(self.depthwise.bias[:, None], weight, self.windows(x).flatten(1))
        return self.mix(a).view(-1, *x.shape)


def _norm(norm: nn.BatchNorm1d, h: Tensor) -> Tensor:
    """Batch norm of ``(d, M)`` over M."""
    return norm(h.unsqueeze(0)).squeeze(0)


class SDN(nn.Module):
    """The trainable network: input current ``(..., L)`` -> decayed potential mem = tau u_{t-1}, ``(..., L)``.

    Args:
        d_model: channels d.
        kernel_size: k, the number of past inputs each layer looks at.
        n_layers: layers; mem_t sees the last n_layers (k - 1) + 1 inputs before t.

    Raises:
        UserError: a size that is not a whole number of at least 1.
    """

    def __init__(self, d_model: int = 8, kernel_size: int = 8, n_layers: int = 1) -> None:
        super().__init__()
        _check_sizes(d_model=d_model, kernel_size=kernel_size, n_layers=n_layers)
        self.d_model, self.kernel_size, self.n_layers = d_model, kernel_size, n_layers
        self.encoder = nn.Conv1d(1, d_model, 1, bias=False)
        self.layers = Modules(SDNLayer(d_model, kernel_size, shift=int(i == 0)) for i in range(n_layers))
        self.decoder = BiasedConv1d(d_model, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not x.numel():
            return x.clone()
        h = self.layers[0].encode(x.reshape(-1, x.shape[-1]), self.encoder.weight[:, 0, 0])
        for layer in self.layers[1:]:
            h = layer(h)
        return (self.decoder.weight[0, :, 0] @ h.flatten(1) + self.decoder.bias).view(x.shape)


class ReducedSDN(nn.Module):
    """The reduced network: buffers only, so it is frozen, moves with ``.to()`` and adds no parameter to its owner.

    With x before the first input zero::

        a[c, t] = relu(sum_j conv_weight[c, j] x[t - k + j] + conv_bias[c])       conv_weight (d, k), conv_bias (d,)
        b[:, t] = relu(mix_weight a[:, t] + mix_bias)                             mix_weight (d, d), mix_bias (d,)
        mem[t]  = out_weight . b[:, t] + out_bias                                 out_weight (d,), out_bias ()

    The skip of the fitted network is part of ``mix_weight`` (its identity is added in). Further layers, if any, carry
    the suffix ``_2``, ``_3``, ...; their convolution is depthwise on b and its window ends at t.

    Args:
        tensors: buffers by name, as above.
        tau: decay of the neuron that the network imitates.
        meta: facts to keep with the weights (plain numbers and strings).

    Raises:
        UserError: missing, unknown, misshapen or non-finite tensors, or tau outside (0, 1).
    """

    conv_weight: Tensor
    conv_bias: Tensor
    mix_weight: Tensor
    mix_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], tau: float, meta: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.tau, self.meta = check_tau(tau), dict(meta or {})
        self.d_model, self.kernel_size, self.n_layers = _check_tensors(tensors)
        for name in reduced_shapes(self.d_model, self.kernel_size, self.n_layers):
            self.register_buffer(name, tensors[name].detach().clone().contiguous())

    def extra_repr(self) -> str:
        return f"tau={self.tau}, d_model={self.d_model}, kernel_size={self.kernel_size}, n_layers={self.n_layers}"

    def layer_tensors(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """``(conv_weight, conv_bias, mix_weight, mix_bias)`` of each layer in turn."""
        for i in range(self.n_layers):
            yield tuple(getattr(self, name + _suffix(i)) for name in _LAYER)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """d, k and the number of layers."""
        return self.d_model, self.kernel_size, self.n_layers

    def flat(self) -> Tensor:
        """All weights as one vector ``(n_weights,)``, in the order of the buffers: what the fast kernels take."""
        return torch.cat([buffer.detach().reshape(-1) for buffer in self.buffers()])

    @property
    def receptive_field(self) -> int:
        """How many inputs before t decide mem_t."""
        return self.kernel_size + (self.n_layers - 1) * (self.kernel_size - 1)

    def n_weights(self) -> int:
        """How many numbers the network holds; 153 at d = 8, k = 8."""
        return sum(buffer.numel() for buffer in self.buffers())

    def forward(self, x: Tensor) -> Tensor:
        """mem ``(..., L)`` of the current x ``(..., L)``, in x's float type; computed in that of the buffers."""
        if not x.numel():
            return x.clone()
        dtype = self.out_weight.dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            if x.device.type == "cpu" and not torch.compiler.is_compiling():
                blocks = rows.split(max(1, _BLOCK // x.shape[-1]))
                mem = torch.cat([self._rows(block) for block in blocks])
            else:
                mem = self._rows(rows)
        return mem.reshape(x.shape).to(x.dtype if x.is_floating_point() else dtype)

    def _rows(self, x: Tensor) -> Tensor:
        h, k = pad(x.unsqueeze(1), (self.kernel_size, -1)), self.kernel_size
        for i, (conv_weight, conv_bias, mix_weight, mix_bias) in enumerate(self.layer_tensors()):
            if i:
                h = pad(h, (k - 1, 0))
            a = torch.relu_(conv1d(h, conv_weight.unsqueeze(1), conv_bias, groups=self.d_model if i else 1))
            h = torch.relu_(conv1d(a, mix_weight.unsqueeze(-1), mix_bias))
        return conv1d(h, self.out_weight.view(1, -1, 1), self.out_bias.view(1)).squeeze(1)


# Steps handled at once on the CPU, so that the d temporaries of a block stay in its cache: 11 times as fast as
# one pass at 4096 x 1024 on two cores.
_BLOCK = 1 << 16
_LAYER = ("conv_weight", "conv_bias", "mix_weight", "mix_bias")


def _suffix(layer: int) -> str:
    return f"_{layer + 1}" if layer else ""


def reduced_shapes(d_model: int = 8, kernel_size: int = 8, n_layers: int = 1) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a :class:`ReducedSDN`."""
    sizes = ((d_model, kernel_size), (d_model,), (d_model, d_model), (d_model,))
    shapes = {name + _suffix(i): size for i in range(n_layers) for name, size in zip(_LAYER, sizes, strict=True)}
    return shapes | {"out_weight": (d_model,), "out_bias": ()}


def _check_tensors(tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """``(d_model, kernel_size, n_layers)`` of a reduced network's tensors, or :class:`UserError`."""
    first = tensors.get("conv_weight")
    if first is None or first.ndim != 2 or 0 in first.shape:
        raise UserError("these are not the weights of a reduced SDN: conv_weight (d, k) is missing")
    d_model, kernel_size = first.shape
    n_layers = sum(name.startswith("conv_weight") for name in tensors)
    shapes = reduced_shapes(d_model, kernel_size, n_layers)
    if odd := sorted(set(shapes) ^ set(tensors)):
        raise UserError(f"these are not the weights of a reduced SDN: missing or unknown tensors {', '.join(odd)}")
    for name, value in tensors.items():
        if tuple(value.shape) != shapes[name]:
            raise UserError(f"{name} of a reduced SDN must have shape {shapes[name]}, not {tuple(value.shape)}")
        if not value.is_floating_point() or value.dtype != first.dtype:
            raise UserError(f"the weights of a reduced SDN must share one float type; {name} is {value.dtype}")
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{name} of a reduced SDN holds NaN or infinite numbers; fit it again")
    return d_model, kernel_size, n_layers
