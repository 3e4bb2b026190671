"""The other processes of a run, here or on other machines: how long they are waited for, and what is said of one
that is gone."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from sdn.errors import reason

_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "broken pipe",
    "timed out waiting",
    "no route to host",
    "read timeout",
    "application timeout",
    "socket timeout",
    "failed to recv",
    "wait timeout",
    "ncclremoteerror",
    "watchdog",
)
"""In what gloo, NCCL and the store say where another process does not answer."""


def wait_at_most(strategy: Any, minutes: float) -> None:
    """Let the processes of ``strategy`` wait no longer for each other; one process alone has nothing to wait for."""
    if hasattr(strategy, "_timeout"):
        strategy._timeout = timedelta(minutes=minutes)


def lost(error: BaseException) -> str | None:
    """What happened where another process of the run is gone, in a sentence; None for other errors."""
    several = int(os.environ.get("WORLD_SIZE", 1) or 1) > 1 or _initialised()
    if not several or not isinstance(error, RuntimeError):
        return None
    text = str(error).lower()
    if not type(error).__name__.startswith("Dist") and not any(words in text for words in _GONE):
        return None
    return f"another process of this run ended or does not answer any more ({reason(error)}); see what it says itself"


def _initialised() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()
