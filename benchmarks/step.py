"""Step table: one whole training step of a network, the reference composition against ours with each neuron.

Then forward and backward of the twin without spikes, S4D layers with GELU and layer norm, in plain PyTorch calls and in
ours, beside ``sltt``: what spikes cost or save in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from models.spike.ssm import SpikingSSM

from .neurons import TAU
from .reference import EagerSDN, ReferenceNetwork, released_size
from .rows import Row, rows_of
from .timing import interleaved


@dataclass
class Shape:
    """An experiment's layer shape, batch and depth reduced to fit the machine."""

    name: str
    batch: int
    length: int
    d_model: int
    n_layers: int
    bidirectional: bool
    d_state: int = 64
    dropout: float = 0.1


CPU = [
    Shape("small: batch 4, L 1024, 2 x 256, bidirectional", 4, 1024, 256, 2, True),
    Shape("cifar layers: batch 4, L 1024, 2 x 512, bidirectional", 4, 1024, 512, 2, True),
    Shape("pathx layers: batch 1, L 16384, 1 x 256, bidirectional", 1, 16384, 256, 1, True, dropout=0.0),
    Shape("wt103 layers: batch 1, L 2048, 1 x 1024, causal", 1, 2048, 1024, 1, False),
]
GPU = [
    Shape("cifar: batch 50, L 1024, 6 x 512, bidirectional", 50, 1024, 512, 6, True),
    Shape("pathx: batch 4, L 16384, 6 x 256, bidirectional", 4, 16384, 256, 6, True, dropout=0.0),
    Shape("wt103: batch 1, L 8192, 4 x 1024, causal", 1, 8192, 1024, 4, False),
]

TWINS = [
    Shape("twin: batch 50, L 784, 2 x 64, causal", 50, 784, 64, 2, False),
    Shape("twin: batch 50, L 784, 2 x 128, causal", 50, 784, 128, 2, False),
    Shape("twin: batch 4, L 1024, 2 x 256, causal", 4, 1024, 256, 2, False),
]
PLAIN = "plain PyTorch, GELU"


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per shape; ratios to the reference composition (eager SDN, direct S4D kernel)."""
    shapes = GPU if device.type == "cuda" else CPU
    for shape in shapes[:1] if quick else shapes:
        torch.manual_seed(0)
        calls = {"reference composition": _reference(shape, device)}
        calls |= {f"ours, {neuron}": _ours(shape, neuron, device) for neuron in ("sdn", "sltt", "bptt")}
        measured = interleaved(calls, device, repeats=3 if quick else 5, budget=20)
        yield from rows_of("step", shape.name, measured, against="reference composition")
    for shape in TWINS[:1] if quick else TWINS:
        torch.manual_seed(0)
        plain = ReferenceNetwork(shape.n_layers, shape.d_model, shape.d_state, nn.GELU(), False, shape.dropout, False)
        calls = {PLAIN: _pass(plain, shape, device)}
        calls |= {f"ours, {neuron}": _pass(_normed(shape, neuron), shape, device) for neuron in ("gelu", "sltt")}
        yield from rows_of(
            "step", shape.name, interleaved(calls, device, repeats=3 if quick else 7, budget=10), against=PLAIN
        )


def _normed(shape: Shape, neuron: str) -> SpikingSSM:
    layer = {"d_state": shape.d_state, "neuron": neuron}
    return SpikingSSM(shape.d_model, shape.n_layers, dropout=shape.dropout, prenorm=True, norm="layer", layer=layer)


def _pass(network: nn.Module, shape: Shape, device: torch.device) -> Callable[[], None]:
    network.to(device).train()
    x = torch.randn(shape.batch, shape.length, shape.d_model, device=device)
    grad = torch.randn_like(x)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        y = network(x)
        (y[0] if isinstance(y, tuple) else y).backward(grad)

    return step


def _reference(shape: Shape, device: torch.device) -> Callable[[], None]:
    neuron = EagerSDN(released_size(TAU))
    network = ReferenceNetwork(shape.n_layers, shape.d_model, shape.d_state, neuron, shape.bidirectional, shape.dropout)
    return _train(network, shape, device, fused=False)


def _ours(shape: Shape, neuron: str, device: torch.device) -> Callable[[], None]:
    network = SpikingSSM(
        shape.d_model,
        shape.n_layers,
        dropout=shape.dropout,
        prenorm=False,
        postnorm="legacy",  # no norm on either side: the released composition's never acts
        layer={"d_state": shape.d_state, "bidirectional": shape.bidirectional, "neuron": neuron, "tau": TAU},
    )
    return _train(network, shape, device, fused=True)


def _train(network: nn.Module, shape: Shape, device: torch.device, fused: bool) -> Callable[[], None]:
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)
    x = torch.randn(shape.batch, shape.length, shape.d_model, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        y = network(x)
        y = y[0] if isinstance(y, tuple) else y
        y.square().mean().backward()
        optimizer.step()

    return step
