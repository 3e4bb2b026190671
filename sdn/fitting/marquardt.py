"""What the second-order fits share: sums over windows of J'WJ and J'Wr, and a step of Levenberg and Marquardt."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)  # judging is cheap beside the curvature, so several lambdas are tried


def add(matrix: Tensor, slope: Tensor, jacobian: Tensor, root: Tensor, pull: Tensor) -> None:
    """Add J'WJ to ``matrix (P, P)`` and J' ``pull`` to ``slope (P,)``; J ``(n, P)`` is used up, ``root (n,)``: of W."""
    slope.addmv_(jacobian.T, pull)
    jacobian *= root[:, None]
    matrix.addmm_(jacobian.T, jacobian)


def step(
    theta: Tensor,
    matrix: Tensor,
    slope: Tensor,
    damping: float,
    limits: tuple[float, float],
    now: float,
    error: Callable[[Tensor], float],
) -> tuple[Tensor, float]:
    """``theta`` after the best of several steps, if its error is below ``now``, and lambda for the next one.

    A step solves ``(matrix + lambda D) step = -slope`` with D the diagonal of ``matrix``; where none of those around
    the lambda ``damping`` lowers the error, lambda grows tenfold within its ``limits``.
    """
    diagonal = torch.diag(matrix.diagonal().clamp_min(1e-12 * matrix.diagonal().max()))
    trials = {}
    for trial in (damping * factor for factor in _FACTORS):
        candidate = theta - torch.linalg.solve(matrix + trial * diagonal, slope)
        trials[error(candidate)] = candidate, trial
    lowest = min(value for value in (*trials, math.inf) if value == value)
    if lowest < now:
        theta, damping = trials[lowest]
    else:
        damping *= 10
    return theta, min(max(damping, limits[0]), limits[1])
