"""The gate for numbers and switches that a caller or a file gives.

Of the wrong type they would be used as they are, and ``bidirectional="no"`` is as true as any text.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch

from sdn.errors import UserError


def whole(least: int = 1, **named: Any) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises:
        UserError: with its name.
    """
    for name, value in named.items():
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = None
        if number is None or number < least:
            raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")


def switch(**named: object) -> None:
    """Refuse what is neither true nor false.

    Raises:
        UserError: with its name.
    """
    for name, value in named.items():
        if type(value).__name__ not in ("bool", "bool_"):
            raise UserError(f"{name} must be true or false, not {value!r}")


def share(**named: object) -> None:
    """Refuse what is no probability below 1.

    Raises:
        UserError: with its name.
    """
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
            raise UserError(f"{name} is a probability and must be at least 0 and below 1, not {value!r}")


def check_rate(rate: object) -> None:
    """Refuse a sampling step that is none.

    Raises:
        UserError: it is no number above 0.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
        raise UserError(f"rate is the sampling step in units of the training data's, a number above 0, not {rate!r}")
