"""Windows of the card's laws to fit a network on: drawn at random, and those on which it was most wrong.

With each comes the law of the next input, so that the share of wrong spikes is an expectation and not a count: a spike
goes wrong when I_t falls between 1 - m and 1 - m' (m: true, m': predicted mem; Phi: normal distribution function)::

    e(m') = | Phi((1 - m' - mean) / std) - Phi((1 - m - mean) / std) |
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .laws import Law
from .simulate import scan

_ROWS, _STEPS = 800, 512
_SHARP = 0.01  # deviation that a constant's next input, which is known, is given


class Windows(NamedTuple):
    """n windows: inputs ``x (n, R)`` before the steps ``t``, ``mem`` there, the next input's ``mean`` and ``std``."""

    x: Tensor
    t: Tensor
    mem: Tensor
    mean: Tensor
    std: Tensor

    def take(self, which: Tensor | slice) -> Windows:
        """Some of them."""
        return Windows(*(column[which] for column in self))

    def density(self, mem: Tensor) -> Tensor:
        """de / d|m'| at the predicted ``mem``."""
        z = (1 - mem - self.mean) / self.std
        return torch.exp(-0.5 * z * z) / (math.sqrt(2 * math.pi) * self.std)

    def wrong(self, mem: Tensor) -> Tensor:
        """e at the predicted ``mem``: the probability of a wrong spike."""
        return wrong(mem, self.mem, self.mean, self.std)


def wrong(predicted: Tensor, mem: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """e, elementwise."""
    there, here = ((1 - m - mean) / (std * math.sqrt(2)) for m in (predicted, mem))
    return 0.5 * (torch.erf(there) - torch.erf(here)).abs()


def next_input(law: Law, current: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every input of ``current (N, L)`` given those before it, float64."""
    now = current.double()
    mean, std = torch.full_like(now, law.mean), torch.full_like(now, law.std)
    if law.name == "ar1":
        mean[:, 1:] += law.extra * (now[:, :-1] - law.mean)
        std[:, 1:] *= math.sqrt(1 - law.extra**2)
    elif law.name == "constant":
        mean, std = now, torch.full_like(now, _SHARP)
    return mean, std


def join(windows: list[Windows]) -> Windows:
    """All of them."""
    return Windows(*(torch.cat(column) for column in zip(*windows, strict=True)))


class Source:
    """Sequences of one law and windows of ``window`` inputs from them; :meth:`renew` draws new ones."""

    def __init__(self, law: Law, tau: float, window: int, rng: np.random.Generator) -> None:
        self.law, self.tau, self.window, self.rng = law, tau, window, rng
        self.renew()

    def renew(self) -> None:
        """Fresh sequences ``current``, ``mem``, ``spike`` ``(N, L)``."""
        current = self.law.draw(self.rng, _ROWS, _STEPS)
        self._padded = np.pad(current, ((0, 0), (self.window, 0)))
        self.current = torch.from_numpy(current)
        self.mem, self.spike = map(torch.from_numpy, scan(current, self.tau))
        self.mean, self.std = next_input(self.law, self.current)

    def at(self, flat: Tensor) -> Windows:
        """The windows before the steps numbered ``flat`` in ``current``."""
        row, t = flat // _STEPS, flat % _STEPS
        x = torch.from_numpy(self._padded[row[:, None], t[:, None] + torch.arange(self.window)]).double()
        return Windows(x, t, self.mem[row, t].double(), self.mean[row, t], self.std[row, t])

    def draw(self, n: int) -> Windows:
        """n windows at random."""
        return self.at(torch.from_numpy(self.rng.integers(0, _ROWS * _STEPS, n)))


class Pool:
    """The windows of one law whose error was largest, at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.windows: Windows | None = None

    def add(self, found: Windows, errors: Tensor) -> None:
        """``found`` too; ``errors``: those of the windows held, then of ``found``."""
        self.windows = found if self.windows is None else join([self.windows, found])
        if len(errors) > self.most:
            self.windows = self.windows.take(errors.topk(self.most).indices)
