"""What :mod:`sdn.fitting.outdo` lowers, and the quadratic forms its steps are made of.

With E_l the expected wrong over true spikes of law l, w_l and B_l the bounds on it and on the largest error, and r_i
the errors in n_l windows kept because they were the worst (of more than 100 the mean, times 100)::

    F = sum_l sway_l E_l / w_l  +  weight sum_l min(1, 100 / n_l) sum_i max(0, |r_i| / (margin B_l) - 1)^2
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import ReducedSDN
from . import marquardt
from .hard_windows import Pool, Source, Windows, join
from .windows import WindowNet

_BLOCK = 4096
_NEAR, _NEW, _POOL = 0.8, 300, 1200  # share of a bound from which a window is kept; how many a scan, and a law
_COUNTED = 100
_SMOOTHING = 1e-4
_MEAN_ERROR, _MEAN_SMOOTHING = 0.02, 1e-3  # a little of the mean error too, where no spike hangs on it


class Aim:
    """F; ``bounds (2, laws)`` are w and B, and ``sway (laws,)`` is 1 at first."""

    def __init__(self, net: WindowNet, sources: list[Source], bounds: Tensor, margin: float) -> None:
        self.net, self.sources, self.weight = net, sources, 1.0
        self.sway = torch.ones(len(sources)).double()
        rates = torch.stack([source.spike.double().sum().clamp_min(1) / source.spike.numel() for source in sources])
        self.per_law, self.largest = 1 / (rates * bounds[0]), margin * bounds[1]
        self.pools = [Pool(_POOL) for _ in sources]

    def draw(self, n: int) -> tuple[Windows, Tensor]:
        """n windows of all laws, and their laws."""
        each = n // len(self.sources)
        laws = torch.arange(len(self.sources)).repeat_interleave(each)
        return join([source.draw(each) for source in self.sources]), laws

    def hard(self) -> tuple[Windows, Tensor] | None:
        """The windows of all pools, and their laws."""
        held = [(i, pool.windows) for i, pool in enumerate(self.pools) if pool.windows is not None]
        if not held:
            return None
        laws = torch.cat([torch.full_like(windows.t, i) for i, windows in held])
        return join([windows for _, windows in held]), laws

    def mem(self, theta: Tensor, windows: Windows) -> Tensor:
        return self.net.in_blocks(theta, windows.x, windows.t, _BLOCK)

    def share(self, laws: Tensor) -> Tensor:
        """min(1, 100 / n_l) of each of ``laws``."""
        held = torch.tensor([0 if pool.windows is None else len(pool.windows.t) for pool in self.pools])
        return 1 / (held / _COUNTED).clamp_min(1).double()[laws]

    def excess(self, residual: Tensor, laws: Tensor) -> Tensor:
        return (residual.abs() / self.largest[laws] - 1).clamp_min(0)

    def __call__(self, theta: Tensor, drawn: tuple[Windows, Tensor], hard: tuple[Windows, Tensor] | None) -> float:
        windows, laws = drawn
        each = windows.wrong(self.mem(theta, windows)) * (self.sway * self.per_law)[laws]
        value = each.sum().item() * len(self.sources) / len(laws)
        if hard:
            excess = self.excess(self.mem(theta, hard[0]) - hard[0].mem, hard[1])
            value += self.weight * (self.share(hard[1]) * excess.square()).sum().item()
        return value

    def curvature(
        self, theta: Tensor, drawn: tuple[Windows, Tensor], hard: tuple[Windows, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """``(J'WJ (P, P), J'Wr (P,))`` of F."""
        matrix, slope = theta.new_zeros(len(theta), len(theta)), torch.zeros_like(theta)
        share = len(self.sources) / len(drawn[1])
        for windows, laws in _blocks(*drawn):
            mem, jacobian = self.net.jacobian(theta, windows.x, windows.t)
            residual = mem - windows.mem
            weight = (
                windows.density(mem) * (self.sway * self.per_law)[laws] / torch.sqrt(residual.square() + _SMOOTHING**2)
            )
            weight += _MEAN_ERROR / torch.sqrt(residual.square() + _MEAN_SMOOTHING**2)
            weight *= share
            marquardt.add(matrix, slope, jacobian, weight.sqrt(), weight * residual)
        if hard:
            beyond = self.excess(self.mem(theta, hard[0]) - hard[0].mem, hard[1]) > 0
            hard = hard[0].take(beyond), hard[1][beyond]
        for windows, laws in _blocks(*hard) if hard else ():
            mem, jacobian = self.net.jacobian(theta, windows.x, windows.t)
            residual, bound = mem - windows.mem, self.largest[laws]
            each = 2 * self.weight * self.share(laws)
            pull = each * self.excess(residual, laws) * residual.sign() / bound
            marquardt.add(matrix, slope, jacobian, each.sqrt() / bound, pull)
        return matrix, slope

    def scan(self, theta: Tensor, sdn: ReducedSDN) -> None:
        """Fresh sequences of every law; the windows with the largest errors join the pools."""
        for source, pool, largest in zip(self.sources, self.pools, self.largest, strict=True):
            source.renew()
            error = (sdn(source.current.double()) - source.mem.double()).abs().flatten()
            most = min(_NEW, int((error > _NEAR * largest).sum()))
            if most == 0:
                continue
            error, where = error.topk(most)
            if pool.windows is not None:
                held = self.mem(theta, pool.windows) - pool.windows.mem
                error = torch.cat([held.abs(), error])
            pool.add(source.at(where), error)


def _blocks(windows: Windows, laws: Tensor) -> list[tuple[Windows, Tensor]]:
    cuts = [slice(i, i + _BLOCK) for i in range(0, len(laws), _BLOCK)]
    return [(windows.take(cut), laws[cut]) for cut in cuts]
