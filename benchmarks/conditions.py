"""Under what conditions something was measured: machine, versions, how much else was running; when not to measure."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sdn.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
QUIET = 0.2
"""Cores that other work may take of a machine that counts as quiet."""
_PACKAGES = (
    *("torch", "numpy", "numba", "triton", "scipy", "safetensors", "onnxruntime", "onnx", "onnxscript"),
    *("spikingjelly", "snntorch", "norse"),
)


def conditions(device: torch.device, others: float | None = None) -> dict[str, Any]:
    """Machine, versions and load, as plain data.

    Args:
        others: cores that other work takes, from :func:`others_cores`, if that was asked already.
    """
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": _commit(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "l2_mib": None if (size := l2_bytes()) is None else size / 2**20,
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "cores_taken_by_others": others_cores() if others is None else others,
        "python": platform.python_version(),
        "versions": _versions(),
    }


def processor() -> str:
    """The processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def l2_bytes() -> int | None:
    """Size of the second-level cache of one core, None where the system does not say."""
    with suppress(OSError):
        for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
            if (index / "level").read_text().strip() == "2":
                size = re.fullmatch(r"(\d+)([KM]?)", (index / "size").read_text().strip())
                return int(size[1]) * {"": 1, "K": 2**10, "M": 2**20}[size[2]] if size else None
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    with suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(ROOT)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], check=True, capture_output=True, text=True)
        return commit + (" (with changes)" if changed.stdout.strip() else "")
    return None


def others_cores(seconds: float = 1.0) -> float:
    """How many cores other work takes, watched for ``seconds`` in which this process does nothing.

    From the kernel's count of ticks that were not idle; where there is none, the load average of the last minute,
    which forgets slowly.
    """
    before, cores = _ticks(), os.cpu_count() or 1
    if before is None:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    time.sleep(seconds)
    after = _ticks()
    total = after[1] - before[1]
    return round(cores * (1 - (after[0] - before[0]) / total), 2) if total else 0.0


def _ticks() -> tuple[int, int] | None:
    """Idle ticks and all ticks since the machine started."""
    with suppress(OSError, ValueError, IndexError):
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)
    return None


def refuse_busy(out: Path, anyway: bool, others: float) -> None:
    """Only what was measured on a quiet machine goes into ``results/``.

    Raises:
        UserError: ``out`` lies in ``results/``, and other work takes more than :data:`QUIET` cores.
    """
    kept = ROOT / "results"
    if anyway or others <= QUIET or kept not in (out.resolve(), *out.resolve().parents):
        return
    raise UserError(
        f"other work takes {others:.1f} of {os.cpu_count()} cores, and results/ keeps what a quiet machine measured; "
        "wait until it is done, write elsewhere with --out, or add --busy-anyway"
    )
