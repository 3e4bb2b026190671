"""The other kind of a neuron: the exact one of an SDN, and the shipped SDN of an exact one, where there is one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sdn.neurons import LIF, SDNNeuron, make_neuron
from sdn.weights import pretrained_taus
from src.module import SequenceModule


def word_of(neuron: nn.Module) -> str:
    """How a config names this neuron: sdn, sltt, bptt; the name of the class for any other."""
    if isinstance(neuron, SDNNeuron):
        return "sdn"
    return neuron.gradient if isinstance(neuron, LIF) else type(neuron).__name__


def other_neuron(neuron: nn.Module) -> nn.Module | str:
    """The other kind, on the device of ``neuron``; or, where there is none, why, as half a sentence."""
    if isinstance(neuron, SDNNeuron):
        return make_neuron("sltt", neuron.tau).to(next(neuron.buffers()).device)
    if not isinstance(neuron, LIF):
        return f"no SDN imitates the neuron {type(neuron).__name__}"
    tau, u_r, reset = neuron.constants()
    if isinstance(tau, Tensor):
        return "an SDN is fitted for one tau, here every channel has learnt its own"
    if reset != "hard" or isinstance(u_r, Tensor) or u_r != 0:
        return "an SDN is fitted for a hard reset to 0, these neurons reset otherwise"
    if tau not in pretrained_taus():
        return f"no fitted SDN ships for tau {tau:g}"
    return make_neuron("sdn", tau)


def other_network(module: SequenceModule, neurons: list[nn.Module]) -> tuple[SequenceModule | None, str]:
    """A copy of the network with the other kind in place of ``neurons``, in evaluation mode; or None and why."""
    others: dict[int, nn.Module] = {}
    for i, neuron in enumerate(neurons):
        other = other_neuron(neuron)
        if isinstance(other, str):
            return None, other
        others[i] = other.to(device_of(module))
    copied = copy.deepcopy(module)
    names = [name for name, part in module.named_modules() if any(part is neuron for neuron in neurons)]
    for i, name in enumerate(names):
        parent, _, child = name.rpartition(".")
        setattr(copied.get_submodule(parent), child, others[i])
    return copied.eval(), ""


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters of ``module`` are."""
    return next(module.parameters()).device
