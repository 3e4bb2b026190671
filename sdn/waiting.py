"""How threads wait for each other: asleep, not spinning.

Between two parallel pieces of a step, GNU OpenMP's threads spin for milliseconds by default. On a machine that does
anything else they spin away the time of the very thread they wait for, and a step takes ten to twenty times as long.
"""

from __future__ import annotations

import os
import sys


def sleep_while_waiting() -> None:
    """Set ``GOMP_SPINCOUNT=0`` where the user has said nothing about waiting; without effect once torch is loaded.

    The library reads it when it is loaded, and so do the processes started from here.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
