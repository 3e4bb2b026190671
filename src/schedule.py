"""Learning-rate schedules: factors f(step) of every group's own rate, stepped once an optimizer step."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from sdn.errors import UserError
from src.registry import build, lookup

log = logging.getLogger(__name__)


def warmup_steps(warmup: float, total: int) -> int:
    """Steps of a warm-up given as a fraction of the run (below 1) or as their number.

    A run shorter than its warm-up never reaches the full learning rate; it is told so.

    Raises:
        UserError: the warm-up is negative.
    """
    if warmup < 0:
        raise UserError(f"scheduler.warmup must not be negative, but is {warmup:g}")
    steps = round(warmup * total) if warmup < 1 else int(warmup)
    if steps >= total and steps > 0:
        log.warning(
            "the warm-up of %d steps is longer than the run of %d: the learning rate stays below %.2g of its full "
            "value (for short runs give a fraction, such as scheduler.warmup=0.1)",
            steps,
            total,
            total / steps,
        )
    return steps


def _scheduled(
    optimizer: Optimizer, total: int, warmup: float, shape: Callable[[float], float], beyond: bool = False
) -> LambdaLR:
    first = warmup_steps(warmup, total)

    def factor(step: int) -> float:
        if step < first:
            return step / first
        part = (step - first) / max(1, total - first)
        return shape(part if beyond else min(1.0, part))

    return LambdaLR(optimizer, factor)


def cosine_warmup(
    optimizer: Optimizer, num_training_steps: int, warmup: float = 0.1, rebound: bool = False
) -> LambdaLR:
    """f = step / w for step < w, then (1 + cos(pi p)) / 2 with p = (step - w) / (total - w) clipped to 1:
    once at 0 it stays there. With ``rebound`` p is not clipped and f rises again, as in the released code, whose
    lengths were typed by hand: mnist reached 0 after 90,000 of 108,000 steps and ended at 0.098."""
    return _scheduled(optimizer, num_training_steps, warmup, lambda p: (1 + math.cos(math.pi * p)) / 2, rebound)


def linear_warmup(optimizer: Optimizer, num_training_steps: int, warmup: float = 0.1) -> LambdaLR:
    """f = step / w for step < w, then linearly to 0."""
    return _scheduled(optimizer, num_training_steps, warmup, lambda p: 1 - p)


def constant(optimizer: Optimizer, num_training_steps: int, warmup: float = 0) -> LambdaLR:
    """f = step / w for step < w, then 1."""
    return _scheduled(optimizer, num_training_steps, warmup, lambda p: 1.0)


def make_scheduler(
    config: Mapping[str, Any], optimizer: Optimizer, total_steps: Callable[[], int], monitor: str, mode: str
) -> dict[str, Any]:
    """A ``scheduler`` config as Lightning wants it.

    One that takes ``num_training_steps``, the user's own included, is stepped after every optimizer step and given the
    length of the run, ``total_steps()``, unless the config says it; any other is stepped after every epoch.
    """
    name = config.get("_name_")
    target = lookup("scheduler", name) if name is not None else None
    if target is not None and "num_training_steps" in inspect.signature(target).parameters:
        steps = config.get("num_training_steps")
        if steps is None:
            # a constant rate has no end to know of, unless its warm-up is a part of the run
            warmup = config.get("warmup") or 0
            endless = name == "constant" and (warmup == 0 or warmup >= 1)
            steps = 1 + int(warmup) if endless else total_steps()
        scheduler = build("scheduler", {**config, "num_training_steps": steps}, optimizer)
        return {"scheduler": scheduler, "interval": "step"}
    extra = {"mode": mode} if isinstance(target, type) and issubclass(target, ReduceLROnPlateau) else {}
    scheduler = build("scheduler", {**extra, **config}, optimizer)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}
