"""Where files lie: paths a user types are relative to where they typed them, not to Hydra's run folder."""

from __future__ import annotations

import os
from pathlib import Path


def original_cwd() -> Path:
    """The folder the command was typed in (Hydra changes into the run folder afterwards)."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()


def resolve(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` expanded and, if relative, taken from :func:`original_cwd`."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else original_cwd() / expanded


def data_root() -> Path:
    """``$DATA_PATH``, or ``./data``."""
    return resolve(os.environ.get("DATA_PATH") or "data")


def cache_root() -> Path:
    """``$DATA_CACHE``; else ``.cache`` in the data root if that can be written to; else ``~/.cache/spikingssm``."""
    if os.environ.get("DATA_CACHE"):
        return resolve(os.environ["DATA_CACHE"])
    root = data_root()
    if root.is_dir() and os.access(root, os.W_OK):
        return root / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spikingssm"
