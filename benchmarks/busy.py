"""Busy table: the step, the neuron kernels and the SDN fit with one thread and two, quiet and beside others.

As many processes that do nothing but count run beside the busy cases as the machine has cores. One thread and two take
turns, so both meet the same machine; the ratio of a case is to one thread, that of ``cost`` is to the quiet time.

A turn is half a second of calls, as a training is, and counts by its mean. Turns of one call each would not do: the
system shares out time over several milliseconds, and a call of one thread would live on what the second thread has
saved up by sleeping.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from models.spike.ssm import SpikingSSM
from sdn.fitting.data import NeuronData
from sdn.fitting.fit import Fit, FitConfig
from sdn.fitting.laws import make_law
from sdn.fitting.simulate import Recipe, scan
from sdn.neurons import make_neuron

from .rows import Row, rows_of
from .timing import Measured, interleaved

THREADS = (1, 2)
_TURN = 0.5  # seconds


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per piece of work: quiet, busy, and what being busy costs."""
    if device.type != "cpu":
        return
    before = torch.get_num_threads()
    try:
        for name, call in work(quick).items():
            quiet = _threads(call, turns=3 if quick else 9, seconds=0.0 if quick else _TURN)
            yield from rows_of("busy", f"{name}, quiet", quiet, "1 thread", group="quiet")
            with loops(os.cpu_count() or 2):
                busy = _threads(call, turns=3 if quick else 25, seconds=0.0 if quick else _TURN)
            yield from rows_of("busy", f"{name}, busy", busy, "1 thread", group="busy")
            for threads, m in busy.items():
                cost = quiet[threads].seconds / m.seconds
                yield Row("busy", f"{name}, cost", threads, *m.milliseconds, cost, "quiet", group="cost")
    finally:
        torch.set_num_threads(before)


def work(quick: bool) -> dict[str, Callable[[], object]]:
    """A training step, neurons forward and backward, and some steps of an SDN fit."""
    torch.manual_seed(0)
    batch, length = (2, 128) if quick else (16, 784)
    layer = {"neuron": "sltt", "d_state": 64}
    model = SpikingSSM(64, 2, dropout=0.1, prenorm=True, norm="layer", layer=layer).train()
    x, grad = torch.randn(batch, length, 64), torch.randn(batch, length, 64) / batch

    def step() -> None:
        model.zero_grad()
        model(x)[0].backward(grad)

    calls: dict[str, Callable[[], object]] = {f"step: batch {batch}, L {length}, 2 x 64": step}
    neurons, steps = (256, 256) if quick else (2048, 1024)
    current, back = torch.randn(1, neurons, steps, requires_grad=True), torch.randn(1, neurons, steps)
    for kind in ("sltt", "bptt", "sdn"):
        neuron = make_neuron(kind, 0.125)

        def kernel(neuron: torch.nn.Module = neuron) -> None:
            current.grad = None
            neuron(current).backward(back)

        calls[f"neurons: {neurons} x {steps}, {kind}"] = kernel
    recipe = Recipe("benchmark", 64 if quick else 512, 256 if quick else 1024, make_law(), 0.2)
    drawn = recipe.draw(0, 64 if quick else 512)
    data = NeuronData(*map(torch.from_numpy, (drawn, *scan(drawn, 0.2))), recipe.header(), Path("benchmark"))
    fit = Fit(FitConfig(), data)

    batches = torch.arange(len(drawn)).split(64)

    def epoch() -> None:
        fit.steps(batches, [1e-3] * len(batches))

    calls[f"SDN fit: {len(batches)} steps of 64 x {drawn.shape[-1]}"] = epoch
    return calls


def _threads(call: Callable[[], object], turns: int, seconds: float) -> dict[str, Measured]:
    """Seconds a call, with one thread and two, from ``turns`` of as many calls as one thread makes in ``seconds``."""
    torch.set_num_threads(1)
    call()
    before = time.perf_counter()
    call()
    calls = max(1, round(seconds / (time.perf_counter() - before)))

    def on(threads: int) -> Callable[[], object]:
        def run() -> None:
            torch.set_num_threads(threads)
            for _ in range(calls):
                call()

        return run

    ways = {f"{n} thread{'s' * (n > 1)}": on(n) for n in THREADS}
    taken = interleaved(ways, torch.device("cpu"), turns, math.inf, memory=False)
    return {name: Measured(m.seconds / calls, m.low / calls, m.high / calls) for name, m in taken.items()}


@contextmanager
def loops(count: int) -> Iterator[None]:
    """That many processes that count, while the block runs."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
