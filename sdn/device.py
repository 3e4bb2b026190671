"""The device a user names."""

from __future__ import annotations

import torch

from .errors import UserError


def check_device(name: str) -> str:
    """Return ``name`` if numbers can live there, e.g. "cpu" or "cuda:1" but not "meta".

    Raises:
        UserError: unknown to torch, or not in this machine.
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        offered = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise UserError(f"device {name!r} is not available here; choose one of {offered}") from error
    return name
