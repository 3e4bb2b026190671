"""Where files lie: paths a user types are relative to where they typed them, not to Hydra's run folder."""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path

log = logging.getLogger(__name__)


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
    """``$DATA_CACHE``; else ``.cache`` in the data root if that can be written to; else :func:`user_cache`."""
    if os.environ.get("DATA_CACHE"):
        return resolve(os.environ["DATA_CACHE"])
    beside = data_root() / ".cache"
    place = beside if beside.is_dir() else beside.parent
    if place.is_dir():
        if os.access(place, os.W_OK):
            return beside
        _say_once(f"{place} cannot be written to: prepared data go to {user_cache()} (DATA_CACHE names another folder)")
    return user_cache()


def user_cache() -> Path:
    """Where programs of this user keep what can be made again: ``$XDG_CACHE_HOME/spikingssm`` or the system's usual
    folder."""
    if os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    else:
        base = Path("~/.cache")
    return base.expanduser() / "spikingssm"


@functools.cache
def _say_once(sentence: str) -> None:
    log.warning("%s", sentence)
