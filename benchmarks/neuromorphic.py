"""Neuromorphic table: Open Neuromorphic's framework benchmark on this device, with the spikes compared.

Its settings: ``Linear(n, n)`` and one layer of LIF neurons, input randn, batch 16, 500 steps, float32; forward, then
``output.sum().backward(retain_graph=True)``; a warm-up, then three runs (two of wide layers on a CPU). SpikingJelly
``LIFNode`` tau 5, arc tangent, multi-step; snnTorch ``Leaky`` beta .95; Norse ``LIFBoxCell`` tau_mem_inv 100, its step
compiled. Ours is ``bptt``, the gradient through time with the reset detached. Each takes its input in the layout it
wants, so that no transposition is charged to the others; ``whole`` charges ours with one, since Linear gives time
before neurons.

The dynamics of each are one of ours: SpikingJelly hard reset, tau .8, inputs over 5; Norse hard, .9, over 10; snnTorch
soft, .95, where it resets at once; by default it resets a step later, undecayed, which is another neuron. At these
settings the neurons of SpikingJelly and Norse are silent, so spikes are compared on a louder input: ``agree``.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sdn.errors import UserError
from sdn.ops import lif
from sdn.surrogate import make_surrogate

from .rows import Row
from .timing import Measured

BATCH, STEPS, LOUDER = 16, 500, 8.0
OURS, AT_ONCE = "ours", "snnTorch, reset at once"
XLABELS = {f"{part}, {way}": "n" for part in ("whole", "LIF alone") for way in ("forward", "backward")}


class Framework(NamedTuple):
    """A neuron layer, ``(T, B, n)`` -> spikes, or ``(B, n, T)`` where time is last; and ours that is its twin.

    ``twin``: tau, threshold, reset. ``exact``: all spikes are equal, but for rounding.
    """

    spikes: Callable[[Tensor], Tensor]
    twin: tuple[float, float, str]
    exact: bool = True
    time_last: bool = False


def frameworks(device: torch.device) -> dict[str, Framework]:
    """Ours, and those that are installed."""
    found = {OURS: Framework(lambda x: ours(x, 0.8, 5.0, "hard"), (0.8, 5.0, "hard"), time_last=True)}
    if importlib.util.find_spec("spikingjelly"):
        found["SpikingJelly"] = Framework(_spikingjelly(device), (0.8, 5.0, "hard"))
    if importlib.util.find_spec("snntorch"):
        found["snnTorch"] = Framework(_snntorch(device, delay=True), (0.95, 1.0, "soft"), exact=False)
        found[AT_ONCE] = Framework(_snntorch(device, delay=False), (0.95, 1.0, "soft"))
    if importlib.util.find_spec("norse"):
        found["Norse"] = Framework(_norse(), (0.9, 10.0, "hard"))
    return found


def ours(current: Tensor, tau: float, v_th: float, reset: str) -> Tensor:
    """Spikes of ``(B, n, T)``."""
    threshold = torch.full((1,), v_th, dtype=current.dtype, device=current.device)
    return lif(current, tau, threshold, 0.0, reset, "bptt", make_surrogate("atan"))


def _spikingjelly(device: torch.device) -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(tau=5.0, surrogate_function=surrogate.ATan(), step_mode="m").to(device)

    def spikes(current: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(current)

    return spikes


def _snntorch(device: torch.device, delay: bool) -> Callable[[Tensor], Tensor]:
    import snntorch

    leaky = snntorch.Leaky(beta=0.95, reset_delay=delay).to(device)

    def spikes(current: Tensor) -> Tensor:
        mem, fired = leaky.reset_mem(), []
        for i_t in current.unbind(0):
            s, mem = leaky(i_t, mem)
            fired.append(s)
        return torch.stack(fired)

    return spikes


def _norse() -> Callable[[Tensor], Tensor]:
    import torch._functorch.config as functorch
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step

    functorch.donated_buffer = False  # retain_graph=True, as the benchmark wants it, keeps all buffers
    p, step = LIFBoxParameters(tau_mem_inv=torch.tensor(100.0)), torch.compile(lif_box_feed_forward_step)

    def spikes(current: Tensor) -> Tensor:
        state, fired = LIFBoxFeedForwardState(v=torch.zeros_like(current[0])), []
        for i_t in current.unbind(0):
            s, state = step(i_t, state, p)
            fired.append(s)
        return torch.stack(fired)

    return spikes


@torch.no_grad()
def agreement(framework: Framework, n: int, device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """The share of spikes and silences that are those of our twin, on an input that makes it fire.

    Raises:
        UserError: neurons that never fire, which agree with anything.
    """
    tau, v_th, reset = framework.twin
    x = LOUDER * torch.randn(STEPS, BATCH, n, device=device, dtype=dtype) / 3**0.5  # as loud as Linear's output is
    x = x * (v_th / 5 if reset == "hard" else 0.3 / LOUDER)  # softly: never two thresholds above, which resets twice
    twin = ours(x.permute(1, 2, 0), tau, v_th, reset)
    if not 0.002 < float(twin.mean()) < 0.9:
        raise UserError(f"the neurons that are compared fire at {float(twin.mean()):.1%}; that compares nothing")
    theirs = framework.spikes(x.permute(1, 2, 0).contiguous() if framework.time_last else x)
    return float((twin == (theirs if framework.time_last else theirs.permute(1, 2, 0))).double().mean())


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per width: the whole and the LIF part alone, forward and backward; ratio: times SpikingJelly's speed."""
    torch.manual_seed(0)
    found = frameworks(device)
    agree = {name: agreement(framework, 128, device) for name, framework in found.items()}
    for name, framework in found.items():
        if framework.exact and agree[name] < 0.999:
            raise UserError(f"{name} gives {1 - agree[name]:.2%} other spikes than the neuron it is compared with")
    widths = (512,) if quick else (512, 1024, 2048, 4096) if device.type == "cpu" else (4096, 8192, 16384)
    for n in widths:
        for part, linear in (("whole", nn.Linear(n, n).to(device)), ("LIF alone", None)):
            timed = {name: f for name, f in found.items() if linear is None or name != AT_ONCE}
            calls = {name: _call(framework, n, linear, device) for name, framework in timed.items()}
            rounds = 2 if quick or (n > 1024 and device.type == "cpu") else 3
            yield from _rows(_measure(calls, rounds, device), agree, n, part)
            del calls


def _call(framework: Framework, n: int, linear: nn.Linear | None, device: torch.device) -> Callable[[], Tensor]:
    shape = (BATCH, STEPS, n) if linear and framework.time_last else (STEPS, BATCH, n)
    if framework.time_last and linear is None:
        shape = (BATCH, n, STEPS)
    x = torch.randn(shape, device=device, requires_grad=linear is None)

    def call() -> Tensor:
        x.grad = None
        if linear is None:
            return framework.spikes(x)
        linear.zero_grad(set_to_none=True)
        current = linear(x)
        return framework.spikes(current.transpose(1, 2) if framework.time_last else current)

    return call


def _measure(
    calls: dict[str, Callable[[], Tensor]], rounds: int, device: torch.device
) -> dict[str, tuple[list[float], list[float]]]:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    for round_ in range(rounds + 1):  # the first is the warm-up
        for name, call in calls.items():
            start = now()
            output = call()
            middle = now()
            output.sum().backward(retain_graph=True)
            end = now()
            del output
            if round_:
                taken[name][0].append(middle - start)
                taken[name][1].append(end - middle)
    return taken


def _rows(
    taken: dict[str, tuple[list[float], list[float]]], agree: dict[str, float], n: int, part: str
) -> Iterator[Row]:
    against = "SpikingJelly" if "SpikingJelly" in taken else OURS
    for i, way in enumerate(("forward", "backward")):
        measured = {name: Measured.of(times[i]) for name, times in taken.items()}
        for name, m in measured.items():
            ratio, group = measured[against].seconds / m.seconds, f"{part}, {way}"
            yield Row(
                "neuromorphic",
                f"n {n}, {group}",
                name,
                *m.milliseconds,
                ratio,
                against,
                group=group,
                x=n,
                agree=agree[name],
            )
