"""Stream table: one sample at a time on one CPU core, event-driven against dense forms of the same network.

The thresholds of a random network are set layer by layer so that it fires at a wanted rate; what is measured is the
whole step from a number to class scores. Candidates: ``model.step``, the step graph in real numbers (as it is,
compiled, and in ONNX Runtime), the same network with GELU for neurons (a dense S4D), and the event-driven engine.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu

from models.spike.event import EventEngine
from models.spike.export import STATE, StepGraph, export_onnx
from models.spike.network import Network
from sdn.ops import lif

from .rows import Row

XLABEL = "firing rate, %"
Step = Callable[[float], object]


class _DenseS4D(StepGraph):
    def neuron(self, i: int, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        return gelu(current), membrane


def network(H: int, n_layers: int, rate: float, steps: int = 256) -> Network:
    """A random network, pre-norm, N 64, of which every layer fires at about ``rate``."""
    torch.manual_seed(0)
    layer = {"neuron": "sltt", "d_state": 64}
    net = Network(
        {
            "model": {"d_model": H, "n_layers": n_layers, "prenorm": True, "norm": "batch", "layer": layer},
            "encoder": {"kind": "linear", "d_input": 1},
            "decoder": {"kind": "sequence", "d_output": 10},
        }
    ).eval()
    x = torch.randn(1, steps, 1)
    for part in net.backbone.layers:
        seen: list[Tensor] = []
        handle = part.neuron.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            net(x)
            handle.remove()
            part.ln_vth.fill_(_log_threshold(seen[0], rate))
    return net


def _log_threshold(current: Tensor, rate: float) -> float:
    low, high = -12.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        fires = float(lif(current / np.exp(middle), 0.125).mean())
        low, high = (middle, high) if fires > rate else (low, middle)
    return (low + high) / 2


def candidates(net: Network) -> dict[str, Step]:
    """A call per candidate that takes one number, updates its own state and returns the class scores."""
    found = {
        "event-driven": _event(net),
        "PyTorch model.step": _model_step(net),
        "PyTorch step graph": _graph(StepGraph(net)),
        "dense S4D (GELU)": _graph(_DenseS4D(net)),
        "torch.compile": _graph(StepGraph(net), torch.compile),
    }
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        found["ONNX Runtime"] = _onnx(net)
    return found


def _event(net: Network) -> Step:
    engine = EventEngine(net.backbone)
    w_in, b_in = (p.detach().numpy().ravel() for p in net.encoder.parameters())
    w_out, b_out = (p.detach().numpy() for p in net.decoder.parameters())
    total, count = np.zeros(engine.d_model, np.float32), 0

    def step(x: float) -> object:
        nonlocal count
        y = engine.step(w_in * np.float32(x) + b_in)
        np.add(total, y, out=total)
        count += 1
        return w_out @ (total / np.float32(count)) + b_out

    step.engine = engine
    return step


def _model_step(net: Network) -> Step:
    state, constants = net.initial_state(), net.backbone.recurrence()

    def step(x: float) -> object:
        nonlocal state
        logits, state = net.step(torch.tensor([[x]]), state, constants)
        return logits

    return step


def _graph(graph: StepGraph, wrap: Callable = lambda call: call) -> Step:
    state, call = graph.initial_state(), wrap(graph)

    @torch.no_grad()
    def step(x: float) -> object:
        nonlocal state
        logits, *state = call(torch.tensor([[x]]), *state)
        return logits

    return step


def _onnx(net: Network) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(str(export_onnx(net, Path(folder) / "step.onnx")), options)
    state = [v.numpy() for v in StepGraph(net).initial_state()]

    def step(x: float) -> object:
        nonlocal state
        logits, *state = session.run(
            None, {"x": np.full((1, 1), x, np.float32), **dict(zip(STATE, state, strict=True))}
        )
        return logits

    return step


def latencies(steps: dict[str, Step], inputs: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Seconds of every single step, the candidates taking turns of ``len(inputs)`` steps."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for x in inputs[:8]:
            step(float(x))
    for _ in range(rounds):
        for name, step in steps.items():
            for x in inputs:
                before = time.perf_counter()
                step(float(x))
                taken[name].append(time.perf_counter() - before)
    return taken


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per size and firing rate; ratio: times the steps a second of the best dense form."""
    if device.type != "cpu":
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sizes = [(256, 2)] if quick else [(512, 6), (128, 2), (256, 4), (1024, 6), (512, 16)]
        for H, n_layers in sizes:
            rates = (0.1,) if quick else (0.01, 0.05, 0.1, 0.2, 0.35, 0.5) if (H, n_layers) == (512, 6) else (0.1,)
            for rate in rates:
                yield from _case(H, n_layers, rate, quick)
    finally:
        torch.set_num_threads(threads)


def _case(H: int, n_layers: int, rate: float, quick: bool) -> Iterator[Row]:
    net = network(H, n_layers, rate)
    steps = candidates(net)
    inputs = np.random.default_rng(0).standard_normal(50 if quick else 100)
    taken = latencies(steps, inputs, rounds=2 if quick else 5)
    fired = float(steps["event-driven"].engine.firing_rates.mean())
    median = {name: statistics.median(values) for name, values in taken.items()}
    best = min(value for name, value in median.items() if name != "event-driven")
    case = f"{n_layers} x {H}, {fired:.1%} firing, one core"
    x = round(fired * 100) if (H, n_layers) == (512, 6) else 0
    for name, values in taken.items():
        tail = statistics.quantiles(values, n=100)[98] - median[name]  # how far the 99th percentile lies above
        ratio = best / median[name]
        yield Row("stream", case, name, median[name] * 1e3, tail * 1e3, ratio, "best dense form", None, None, x)
