"""Export to NIR, the Neuromorphic Intermediate Representation, of what NIR can express: affine maps and LIF neurons.

NIR's LIF is continuous, tau_nir dv/dt = (v_leak - v) + R I. With a forward Euler step dt it reads
v <- (1 - dt / tau_nir) v + (R dt / tau_nir) I, which is our u' = tau u + I for::

    tau_nir = dt / (1 - tau),   R = 1 / (1 - tau),   v_leak = 0,   v_threshold = v_th,   v_reset = u_r v_th
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from sdn.contract import Neuron, require
from sdn.errors import UserError

from .ss4d import SS4D
from .ssm import SpikingSSM

if TYPE_CHECKING:
    import nir


def to_nir(parts: Sequence[nn.Module], dt: float = 1e-4, v_th: torch.Tensor | float = 1.0) -> nir.NIRGraph:
    """A chain of :class:`torch.nn.Linear`, 1x1 :class:`torch.nn.Conv1d` and neurons as a NIR graph.

    Args:
        parts: the modules in order; the first must be an affine map, which tells the neurons' number.
        dt: seconds a time step stands for.
        v_th: threshold of the neurons, a number or ``(H,)`` (one chain of one width).

    Raises:
        UserError: the package nir is missing, or a part has no counterpart in NIR.
    """
    try:
        import nir
    except ImportError as error:
        raise UserError("NIR export needs the package nir: pip install nir") from error
    if not parts:
        raise UserError("there is nothing to export: the chain has no parts")
    nodes: list[nir.NIRNode] = []
    width = None
    for part in parts:
        if isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv1d) and part.kernel_size == (1,) and part.groups == 1
        ):
            weight = part.weight.detach().cpu().double().numpy().reshape(part.weight.shape[:2])
            width = len(weight)
            bias = np.zeros(width) if part.bias is None else part.bias.detach().cpu().double().numpy()
            nodes.append(nir.Affine(weight, bias))
        elif isinstance(part, Neuron):
            require(part, "nir")
            nodes.append(_neuron(part, width, dt, v_th))
        else:
            raise UserError(_refusal(part))
    return nir.NIRGraph.from_list(*nodes)


def _neuron(part: Neuron, width: int | None, dt: float, v_th: torch.Tensor | float) -> nir.LIF:
    import nir

    if width is None:
        raise UserError("a chain for NIR must begin with an affine map, which tells how many neurons follow")
    tau, u_r, reset = part.constants()
    if reset == "soft":
        raise UserError("NIR's LIF resets to a value; a neuron with soft reset cannot be exported")

    def full(value: torch.Tensor | float) -> np.ndarray:
        return torch.as_tensor(value, dtype=torch.float64).detach().cpu().expand(width).numpy().copy()

    decay, threshold = full(tau), full(v_th)
    return nir.LIF(dt / (1 - decay), 1 / (1 - decay), np.zeros(width), threshold, full(u_r) * threshold)


def _refusal(part: nn.Module) -> str:
    name = type(part).__name__
    if isinstance(part, (SS4D, SpikingSSM)):
        return (
            f"NIR has no node for the complex state space of {name}; export its neuron and affine parts, "
            "or the whole step as ONNX (models.spike.export.export_onnx)"
        )
    return f"NIR has no node for {name}; what can be exported is Linear, 1x1 Conv1d and the neurons of sdn.neurons"
