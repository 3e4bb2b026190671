"""What the stream table compares: the event engine and the dense rivals, each a step from numbers to answers.

All take ``x (B, d)`` float32 and give logits ``(B, C)``; ``reset`` starts all streams again. Everything runs on one
thread. The dense forms are what the network exports to, :class:`models.spike.export.StepGraph`:

- torch.compile: inductor with frozen weights, without its pool of compiling processes, which would still be starting
  while the first case is measured;
- ONNX Runtime: the exported graph, float32;
- ONNX Runtime int8: the same after dynamic quantisation, weights to 8 bits a channel (``quantize_dynamic``): spikes are
  0 or 1 and lose nothing, weights do;
- own dense kernel: the engine's compiled loops with a dense mix.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from models.spike import StreamEngine
from models.spike.export import STATE, StepGraph, export_onnx
from models.spike.network import Network

OURS, STEP, DENSE, COMPILED, ONNX, INT8 = (
    "event engine",
    "network.step",
    "own dense kernel",
    "torch.compile",
    "ONNX Runtime",
    "ONNX Runtime int8",
)
RIVALS = (DENSE, COMPILED, ONNX, INT8)


class Candidate(Protocol):
    """One way to run a network's step for a fixed number of streams."""

    def reset(self) -> None: ...

    def step(self, x: NDArray) -> NDArray: ...


class DenseEngine(StreamEngine):
    """The streaming engine with every weight multiplied."""

    def __init__(self, network: Network, batch: int = 1) -> None:
        from . import dense_kernels

        super().__init__(network, batch)
        self._advance = dense_kernels.advance


class NetworkStep:
    """``network.step``."""

    def __init__(self, network: Network, batch: int) -> None:
        self.network, self.batch = network, batch
        self.reset()

    def reset(self) -> None:
        self.state = self.network.initial_state(self.batch)

    def step(self, x: NDArray) -> NDArray:
        logits, self.state = self.network.step(torch.from_numpy(x), self.state)
        return logits.numpy()


class CompiledGraph:
    """The step graph by ``torch.compile``."""

    def __init__(self, network: Network, batch: int) -> None:
        import torch._inductor.config as inductor

        inductor.compile_threads, inductor.freezing = 1, True
        torch._dynamo.reset()
        self.graph, self.batch = StepGraph(network), batch
        self.call = torch.compile(self.graph, dynamic=False)
        self.reset()

    def reset(self) -> None:
        self.state = self.graph.initial_state(self.batch)

    @torch.no_grad()
    def step(self, x: NDArray) -> NDArray:
        logits, *self.state = self.call(torch.from_numpy(x), *self.state)
        return logits.numpy()


class OnnxGraph:
    """A graph file in ONNX Runtime on one thread."""

    def __init__(self, path: Path, state: Iterable[torch.Tensor]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.zeros = {name: value.numpy() for name, value in zip(STATE, state, strict=True)}
        self.reset()

    def reset(self) -> None:
        self.state = dict(self.zeros)

    def step(self, x: NDArray) -> NDArray:
        logits, *state = self.session.run(None, {"x": x, **self.state})
        self.state = dict(zip(STATE, state, strict=True))
        return logits


def candidates(network: Network, batch: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Every way that can be had here, by name; ``names``: only these."""
    wanted = set(names or (OURS, STEP, *RIVALS))
    if not all(map(importlib.util.find_spec, ("onnxruntime", "onnx", "onnxscript"))):
        wanted -= {ONNX, INT8}
    makers = {OURS: StreamEngine, STEP: NetworkStep, DENSE: DenseEngine, COMPILED: CompiledGraph}
    found = {name: make(network, batch) for name, make in makers.items() if name in wanted}
    if wanted & {ONNX, INT8}:
        state = StepGraph(network).initial_state(batch)
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(network, Path(folder) / "step.onnx", batch)
            if ONNX in wanted:
                found[ONNX] = OnnxGraph(path, state)
            if INT8 in wanted:
                found[INT8] = OnnxGraph(quantised(path), state)
    return found


def quantised(path: Path) -> Path:
    """The graph with 8-bit products, beside ``path``; its weights are folded to constants first, or none is found."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded, small = path.with_name("folded.onnx"), path.with_name("int8.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath, options.log_severity_level = str(folded), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    logging.disable(logging.WARNING)  # it advises what was just done
    try:
        quantize_dynamic(folded, small, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return small
