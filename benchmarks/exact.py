"""Exact table: the fused exact neuron against the surrogate it replaces, over lengths of 1 K to 16 K.

``sltt`` computes the recurrence, the SDN predicts it by 151 weights: fused as here, and as released, by three
convolutions of 153. The same gradient for all; batch 64 x 512 neurons on a GPU, 1 x 512 on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .neurons import Candidate, candidates, training_step
from .rows import Row, rows_of
from .timing import interleaved

XLABELS = {"forward": "L", "forward + backward": "L"}
NAMES = {"sltt": "exact, fused", "fused SDN": "SDN, fused", "eager SDN": "SDN as released"}


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per length, forward and forward + backward; ratio: times the speed of the fused SDN."""
    torch.manual_seed(0)
    batch = 64 if device.type == "cuda" else 1
    width = 32 if quick else 512
    for length in (256, 1024) if quick else (1024, 2048, 4096, 8192, 16384):
        shape, found = (batch, width, length), candidates(device)
        neurons = {NAMES[name]: neuron for name, neuron in found.items() if name in NAMES}
        current = torch.randn(shape, device=device)
        ways = {
            "forward": {name: _forward(neuron, current) for name, neuron in neurons.items()},
            "forward + backward": {name: training_step(neuron, shape, device) for name, neuron in neurons.items()},
        }
        for way, calls in ways.items():
            measured = interleaved(calls, device, repeats=3 if quick else 9, budget=5)
            yield from rows_of("exact", f"{batch * width} x {length}, {way}", measured, "SDN, fused", length, way)


def _forward(neuron: Candidate, current: torch.Tensor):
    def call() -> torch.Tensor:
        with torch.no_grad():
            return neuron.spikes(current)

    return call
