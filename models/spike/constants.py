"""What every engine that runs a network's step elsewhere is built from: its constants, stacked over the layers.

With h = A h + x (B folded into C) a step of layer n is::

    I = Re(drive h) + D x,   drive = 2 B C      u' = tau u + I      [a; b] = weight s + bias

The modes of such an engine are h / B of the model's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sdn.contract import require
from sdn.errors import UserError

from .norms import LayerNorm, fold
from .ssm import SpikingSSM

NORMS = {"none": 0, "affine": 1, "layer": 2}
"""The compiled loops' numbers for :attr:`FoldedNorm.kind`."""
POOL, LAST, EVERY_STEP = range(3)
"""And for what a decoder answers by: the mean so far, the last sample, each sample by itself."""


class FoldedNorm(NamedTuple):
    """A norm with fixed statistics: "none", "affine" x scale + shift, or "layer" over channels with scale and shift."""

    kind: str
    scale: Tensor
    shift: Tensor
    eps: float


class StepConstants(NamedTuple):
    """Layers come first: A, B, drive ``(n, H, N)`` complex; D, tau, u_r ``(n, H)``; weight ``(n, 2H, H)``,
    bias ``(n, 2H)`` of the mix; norms, one a layer. ``soft``: reset by subtraction of the threshold."""

    A: Tensor
    B: Tensor
    drive: Tensor
    D: Tensor
    tau: Tensor
    u_r: Tensor
    soft: bool
    weight: Tensor
    bias: Tensor
    norms: list[FoldedNorm]


def float_type(dtype: Any) -> np.dtype:
    """The type an engine computes in.

    Raises:
        UserError: neither float32 nor float64.
    """
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise UserError(f"the engine computes in float32 or float64, not {dtype!r}")
    return found


@torch.no_grad()
def step_constants(model: SpikingSSM, ability: str, rate: float = 1.0) -> StepConstants:
    """The constants of a causal model of leaky integrate-and-fire neurons, on its device, in the type of its weights.

    Args:
        ability: what they are for, an ability of :class:`sdn.Neuron` ("event_engine", "onnx").
        rate: the sampling step in units of the training data's.

    Raises:
        UserError: bidirectional layers, or neurons that cannot be run so.
    """
    for layer in model.layers:
        require(layer.neuron, ability)
    layers = model.recurrence(rate)
    neurons = [layer.neuron.constants() for layer in model.layers]
    if len({reset for _, _, reset in neurons}) > 1:
        raise UserError("the layers differ in how their neurons reset; an engine runs one kind, hard or soft")
    H = model.d_model

    def stack(tensors: list[Tensor]) -> Tensor:
        return torch.stack([t.detach() for t in tensors]).contiguous()

    def full(value: float | Tensor, like: Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(H)

    return StepConstants(
        A=stack([c.A for c in layers]),
        B=stack([c.B for c in layers]),
        drive=stack([2 * c.B * c.C for c in layers]),
        D=stack([c.D for c in layers]),
        tau=stack([full(n[0], c.D) for n, c in zip(neurons, layers, strict=True)]),
        u_r=stack([full(n[1], c.D) for n, c in zip(neurons, layers, strict=True)]),
        soft=neurons[0][2] == "soft",
        weight=stack([layer.mix.weight.squeeze(-1) for layer in model.layers]),
        bias=stack([layer.mix.bias for layer in model.layers]),
        norms=[_folded(norm, H) for norm in model.norms],
    )


def _folded(norm: nn.Module, H: int) -> FoldedNorm:
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return FoldedNorm("affine", *fold(norm), 0.0)
    if isinstance(norm, LayerNorm):
        return FoldedNorm("layer", norm.weight.detach(), norm.bias.detach(), norm.eps)
    return FoldedNorm("none", torch.ones(H), torch.zeros(H), 0.0)
