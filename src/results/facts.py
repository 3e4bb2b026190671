"""What a run was: its command, configuration, code, machine and load, as plain data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "pytorch-lightning", "numpy", "numba", "triton", "datasets")


def command() -> str | None:
    """The line that was typed, ``python -m train ...``, without the run folder; None outside the command line."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    return shlex.join(["python", "-m", "train", *HydraConfig.get().overrides.task])


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are the same for the same composed configuration, whatever the order of its keys.

    Where a run was pre-empted, went on or was logged to is no part of it.
    """
    kept = {key: value for key, value in config.items() if key not in ("tolerance", "logger", "wandb")}
    kept["train"] = {key: value for key, value in config["train"].items() if key != "ckpt"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def commit() -> dict[str, Any]:
    """``{"commit": hash, "changed": whether tracked files differ from it}``; empty where this is no git checkout."""
    head = _git("rev-parse", "HEAD")
    return {"commit": head, "changed": bool(_git("status", "--porcelain", "-uno"))} if head else {}


def _git(*words: str) -> str:
    try:
        run = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Python and the packages that decide what a run computes, as installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str = "cpu", devices: int = 1) -> dict[str, Any]:
    """Processor, usable cores, threads of torch, and the accelerators a run used."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"cpu": processor(), "cores": usable, "threads": torch.get_num_threads()}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    elif device != "cpu":
        found["device"] = device
    return found | {"processes": devices}


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load() -> float | None:
    """Runnable processes over the last minute, where the system tells: above ``cores`` the machine was busy."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
