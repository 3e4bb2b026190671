"""Reduction of a fitted SDN: everything linear is multiplied out, 193 weights become 153, the function stays.

Three exact steps, done in float64 on the statistics of evaluation mode:

1. encoder into the first convolution:  dw[c, j] e[c] (the encoder has no bias, so zero history stays zero);
2. each batch norm into the convolution before it:  W' = g W,  b' = g (b - mean) + beta,  g = gamma / sqrt(var + eps);
3. the skip into the pointwise mix:  P a + a = (P + 1) a.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..network import SDN, ReducedSDN, _suffix
from ..typed import TrackingBatchNorm1d


def fuse_encoder(encoder: nn.Conv1d, depthwise: nn.Conv1d) -> Tensor:
    """Step 1: first convolution acting on x itself, ``(d, k)`` in float64."""
    return depthwise.weight.double()[:, 0] * encoder.weight.double()[:, 0]


def fold_batch_norm(weight: Tensor, bias: Tensor, norm: TrackingBatchNorm1d) -> tuple[Tensor, Tensor]:
    """Step 2: ``(weight (d, n), bias (d,))`` that do what the convolution and then ``norm`` in evaluation mode do."""
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return weight.double() * gain[:, None], (bias.double() - norm.running_mean.double()) * gain + norm.bias.double()


@torch.no_grad()
def reduce(
    sdn: SDN, tau: float, meta: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> ReducedSDN:
    """The reduced form of ``sdn`` in evaluation mode, on the CPU: the same function of x up to rounding in ``dtype``.

    Args:
        sdn: a fitted network; left unchanged.
        tau: decay of the neuron it was fitted to.
        meta: facts to keep with the weights.

    Raises:
        UserError: tau outside (0, 1) or weights that are not finite.
    """
    tensors: dict[str, Tensor] = {}
    eye = torch.eye(sdn.d_model, dtype=torch.float64, device=sdn.decoder.weight.device)
    for i, layer in enumerate(sdn.layers):
        conv = layer.depthwise.weight.double()[:, 0] if i else fuse_encoder(sdn.encoder, layer.depthwise)
        conv, conv_bias = fold_batch_norm(conv, layer.depthwise.bias, layer.depthwise_norm)
        mix, mix_bias = fold_batch_norm(layer.pointwise.weight[..., 0], layer.pointwise.bias, layer.pointwise_norm)
        named = {"conv_weight": conv, "conv_bias": conv_bias, "mix_weight": mix + eye, "mix_bias": mix_bias}
        tensors |= {name + _suffix(i): value for name, value in named.items()}
    tensors |= {"out_weight": sdn.decoder.weight[0, :, 0], "out_bias": sdn.decoder.bias[0]}
    return ReducedSDN({name: value.to("cpu", dtype) for name, value in tensors.items()}, tau, meta)
