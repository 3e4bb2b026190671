"""Measuring by ratios: all candidates of a table run interleaved in one process, so noise hits them alike."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from .conditions import processor


@dataclass
class Measured:
    """Median, quartiles and 99th percentile (of a hundred calls or more) of a call in seconds; peak extra memory."""

    seconds: float
    low: float
    high: float
    p99: float | None = None
    peak_bytes: int | None = None

    @classmethod
    def of(cls, taken: Sequence[float], peak_bytes: int | None = None) -> Measured:
        """From the seconds of every call."""
        if len(taken) == 1:
            return cls(taken[0], taken[0], taken[0], None, peak_bytes)
        low, median, high = statistics.quantiles(taken, n=4, method="inclusive")
        p99 = statistics.quantiles(taken, n=100, method="inclusive")[98] if len(taken) >= 100 else None
        return cls(median, low, high, p99, peak_bytes)

    @property
    def milliseconds(self) -> list[float | None]:
        """Median, quartiles and 99th percentile, as a row has them."""
        return [None if s is None else 1e3 * s for s in (self.seconds, self.low, self.high, self.p99)]


def hardware(device: torch.device) -> str:
    """One line that names the processor or GPU, its cores and the torch release."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    calls: dict[str, Callable[[], object]],
    device: torch.device,
    repeats: int = 7,
    budget: float = 20.0,
    memory: bool = True,
) -> dict[str, Measured]:
    """Time every call ``repeats`` times in turn, after one unmeasured round of each.

    Args:
        budget: seconds after which no new round starts (at least two rounds are run).
    """
    for call in calls.values():
        call()
    _wait(device)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for round_ in range(repeats):
        if round_ >= 2 and time.perf_counter() - start > budget:
            break
        for name, call in calls.items():
            _wait(device)
            before = time.perf_counter()
            call()
            _wait(device)
            samples[name].append(time.perf_counter() - before)
    return {
        name: Measured.of(taken, peak_memory(calls[name], device) if memory else None)
        for name, taken in samples.items()
    }


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of one call above what was held before it, in bytes; None where the system cannot tell.

    On the GPU from the allocator. On Linux from the process's high-water mark, reset before the call, with freed
    heap pages handed back first.
    """
    gc.collect()
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        call()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - held
    try:
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        held = _status("VmRSS")
        call()
        return max(_status("VmHWM") - held, 0)
    except OSError:
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} in /proc/self/status")
