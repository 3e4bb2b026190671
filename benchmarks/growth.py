"""Growth: time and memory of a neuron layer against the length and against the number of neurons."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .neurons import candidates, training_step
from .rows import Row, rows_of
from .timing import interleaved

XLABELS = {"against the length": "steps", "against the number of neurons": "neurons"}
NAMES = ("eager SDN", "fused SDN", "sltt", "bptt", "naive loop", "SpikingJelly LIFNode")


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Two sweeps, forward + backward: L at 512 neurons, neurons at L = 1024."""
    torch.manual_seed(0)
    lengths = (256, 1024, 4096) if quick else (256, 512, 1024, 2048, 4096, 8192, 16384)
    widths = (64, 512, 2048) if quick else (64, 128, 256, 512, 1024, 2048, 4096)
    for length in lengths:
        yield from _case(device, quick, 512, length, length, "against the length")
    for width in widths:
        yield from _case(device, quick, width, 1024, width, "against the number of neurons")


def _case(device: torch.device, quick: bool, width: int, length: int, x: int, sweep: str) -> Iterator[Row]:
    found = {name: neuron for name, neuron in candidates(device).items() if name in NAMES}
    calls = {name: training_step(neuron, (1, width, length), device) for name, neuron in found.items()}
    measured = interleaved(calls, device, repeats=2 if quick else 3, budget=3 if quick else 5)
    yield from rows_of("growth", f"{width} x {length}, {sweep}", measured, "eager SDN", x, sweep)
