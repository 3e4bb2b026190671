"""The device a user names."""

from __future__ import annotations

import torch

from .errors import UserError


def check_device(name: str) -> str:
    """Return ``name`` if a tensor can live there, e.g. "cpu" or "cuda:1".

    Raises:
        UserError: unknown to torch, or not in this machine.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        offered = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise UserError(f"device {name!r} is not available here; choose one of {offered}") from error
    return name
