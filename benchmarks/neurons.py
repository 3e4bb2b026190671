"""Neuron table: one layer of neurons, forward and backward, over the sequence length (the paper's Table 1 redrawn)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdn.lif import lif_reference
from sdn.neurons import make_neuron

from .reference import EagerSDN, released_size
from .rows import Row, rows_of
from .timing import interleaved

TAU = 0.125


@dataclass
class Candidate:
    """A neuron and the layout it is measured in: its own, so that no transposition is charged to it."""

    spikes: Callable[[Tensor], Tensor]
    time_first: bool = False


def candidates(device: torch.device) -> dict[str, Candidate]:
    """Every neuron that can be had here, by name; "naive loop" takes one Python step a time step."""
    found = {
        "eager SDN": Candidate(EagerSDN(released_size(TAU)).to(device)),
        "fused SDN": Candidate(make_neuron("sdn", TAU).to(device)),
        "sltt": Candidate(make_neuron("sltt", TAU).to(device)),
        "bptt": Candidate(make_neuron("bptt", TAU).to(device)),
        "naive loop": Candidate(lambda current: lif_reference(current, TAU)[1]),
    }
    if importlib.util.find_spec("spikingjelly"):
        found["SpikingJelly LIFNode"] = _spikingjelly(device)
    if importlib.util.find_spec("snntorch"):
        found["snnTorch Leaky"] = _snntorch(device)
    return found


def _spikingjelly(device: torch.device) -> Candidate:
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        tau=1 / (1 - TAU),
        decay_input=False,
        v_reset=0.0,
        detach_reset=True,
        step_mode="m",
        surrogate_function=surrogate.PiecewiseQuadratic(),
    ).to(device)
    if device.type == "cuda":
        node.backend = "triton"

    def call(current: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(current)

    return Candidate(call, time_first=True)


def _snntorch(device: torch.device) -> Candidate:
    import snntorch

    leaky = snntorch.Leaky(beta=TAU, reset_mechanism="zero").to(device)

    def call(current: Tensor) -> Tensor:
        mem = leaky.reset_mem()
        spikes = []
        for i_t in current.unbind(0):
            s, mem = leaky(i_t, mem)
            spikes.append(s)
        return torch.stack(spikes)

    return Candidate(call, time_first=True)


def training_step(neuron: Candidate, shape: tuple[int, int, int], device: torch.device) -> Callable[[], None]:
    """A call that runs one forward and backward pass of ``neuron`` at ``shape`` (B, H, L)."""
    if neuron.time_first:
        shape = (shape[2], *shape[:2])
    current = torch.randn(shape, device=device, requires_grad=True)
    grad = torch.randn(shape, device=device)

    def step() -> None:
        current.grad = None
        neuron.spikes(current).backward(grad)

    return step


def _copy(shape: tuple[int, int, int], device: torch.device, passes: int) -> Callable[[], None]:
    source, target = torch.randn(shape, device=device), torch.empty(shape, device=device)

    def copy() -> None:
        for _ in range(passes):
            target.copy_(source)

    return copy


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows of the neuron table: forward + backward, then forward alone; ratios to the eager SDN."""
    torch.manual_seed(0)
    batch, width = (64, 512) if device.type == "cuda" else (8, 256)
    for length in (1024, 4096) if quick else (1024, 2048, 4096, 8192):
        shape = (batch, width, length)
        steps = {name: training_step(neuron, shape, device) for name, neuron in candidates(device).items()}
        if quick and length > 1024:
            steps = {name: step for name, step in steps.items() if name not in ("naive loop", "snnTorch Leaky")}
        # Forward reads I and writes s; backward reads the gradient and I and writes dI: two and a half copies.
        steps["floor: 2.5 copies"] = _copies(shape, device)
        case = f"{batch * width} x {length}, forward + backward"
        measured = interleaved(steps, device, repeats=3 if quick else 5, budget=8)
        yield from rows_of("neuron", case, measured, "eager SDN", length, "forward + backward")
        del steps
    yield from _forward(device, batch, width, 1024 if quick else 4096)
    if not quick:
        yield from _long(device)


def _copies(shape: tuple[int, int, int], device: torch.device) -> Callable[[], None]:
    whole = _copy(shape, device, 2)
    half = _copy((shape[0], shape[1], shape[2] // 2), device, 1)

    def copies() -> None:
        whole()
        half()

    return copies


def _forward(device: torch.device, batch: int, width: int, length: int) -> Iterator[Row]:
    shape = (batch, width, length)
    current = torch.randn(shape, device=device)
    neurons = {n: f for n, f in candidates(device).items() if n in ("eager SDN", "fused SDN", "sltt")}
    calls = {name: lambda neuron=neuron: neuron.spikes(current) for name, neuron in neurons.items()}
    calls["floor: 1 copy into place"] = _copy(shape, device, 1)
    measured = interleaved(calls, device, repeats=7)
    yield from rows_of("neuron", f"{batch * width} x {length}, forward", measured, against="eager SDN")


def _long(device: torch.device) -> Iterator[Row]:
    """Few neurons, long sequences: where the exact scan is split over time, speculated, verified and repaired."""
    for batch, width, length in ((1, 16, 65536), (8, 256, 65536)):
        exact = {n: Candidate(make_neuron(n, TAU).to(device)) for n in ("sltt", "bptt")}
        calls = {n: training_step(neuron, (batch, width, length), device) for n, neuron in exact.items()}
        calls["floor: 2.5 copies"] = _copies((batch, width, length), device)
        measured = interleaved(calls, device)
        case = f"{batch * width} x {length}, forward + backward"
        yield from rows_of("neuron", case, measured, against="floor: 2.5 copies")
