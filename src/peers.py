"""The other processes of a run, here or on other machines: how long they are waited for, and what is said of one that
is gone."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from sdn.disk import chain
from sdn.errors import reason

_GONE = re.compile(
    r"closed by peer|reset by peer|likely closed|pair closure|broken pipe|no route to host|failed to (?:recv|send)"
    r"|tim(?:ed|e) ?out|clients joined|remoteerror|watchdog",
    re.IGNORECASE,
)
"""In what gloo, NCCL and the store say where another process does not answer."""


def wait_at_most(strategy: Any, minutes: float) -> None:
    """Let the processes of ``strategy`` wait no longer for each other; one process alone has nothing to wait for."""
    if hasattr(strategy, "_timeout"):
        strategy._timeout = timedelta(minutes=minutes)


def lost(error: BaseException) -> str | None:
    """What is wrong between the processes of a run, in a sentence; None for an error that comes from elsewhere."""
    for link in chain(error):
        if _is_of_communication(link):
            said = re.sub(r"^.*?\[[^]\s]+:\d+\]\s*", "", reason(link)).partition(". ")[0].rstrip(".")
            if _GONE.search(str(link)):
                return f"another process of this run ended or does not answer any more ({said}); see what it says"
            return f"the processes of this run cannot reach each other ({said}); see that their addresses are right"
    return None


def _is_of_communication(error: BaseException) -> bool:
    import torch.distributed as dist

    if not dist.is_available() or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
