"""A network that is worse than another on no law of the card, by second-order steps towards 18 bounds at once.

:mod:`sdn.fitting.refine` lowers the mean error on one kind of input. Here all laws count, each by the share of wrong
spikes it may have (E_l: expected wrong over true spikes, w_l: the bound on it), beside what exceeds a part of the bound
B_l on the largest error, in windows kept from scan to scan because they were the worst::

    F = sum_l E_l / w_l  +  weight sum_l sum_i max(0, |r_i| / (margin B_l) - 1)^2

Steps are those of Levenberg and Marquardt, with E reweighted to squares as in :mod:`sdn.fitting.refine`. Judged, every
40 steps, is the float32 network on fixed fresh sequences; the one that is furthest inside its bounds is kept.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, door
from ..network import ReducedSDN
from .bounds import Judge, read_bounds
from .card import LAWS
from .hard_windows import Pool, Source, Windows, join
from .windows import WindowNet

Progress = Callable[[int, Tensor], None]  # step, figures over bounds (2, laws)

_BLOCK = 4096
_SCAN_EVERY, _JUDGE_EVERY = 4, 40
_NEAR, _NEW, _POOL = 0.8, 300, 1200  # share of a bound from which a window is kept; how many a scan, and a law
_SWAY, _RANGE = (0.8, 1.5), (0.1, 10.0)  # of a law's weight from judgement to judgement, and in all
_EASY = 1 / 3  # part of the weight of the largest errors at the first step; all of it from the middle on
_FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)
_KEEP_MATRIX, _KEEP_SLOPE = 0.7, 0.5
_SMOOTHING = 1e-4
_MEAN_ERROR, _MEAN_SMOOTHING = 0.02, 1e-3  # a little of the mean error too, where no spike hangs on it
_JUDGED_BY = 1000  # added to the seed of the sequences that decide


class _Aim:
    """F and its curvature; ``bounds (2, laws)``."""

    def __init__(self, net: WindowNet, sources: list[Source], bounds: Tensor, margin: float, weight: float) -> None:
        self.net, self.sources, self.weight = net, sources, weight
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
        blocks = zip(windows.x.split(_BLOCK), windows.t.split(_BLOCK), strict=True)
        return torch.cat([self.net(theta, *block) for block in blocks])

    def excess(self, residual: Tensor, laws: Tensor) -> Tensor:
        return (residual.abs() / self.largest[laws] - 1).clamp_min(0)

    def __call__(self, theta: Tensor, drawn: tuple[Windows, Tensor], hard: tuple[Windows, Tensor] | None) -> float:
        windows, laws = drawn
        each = windows.wrong(self.mem(theta, windows)) * (self.sway * self.per_law)[laws]
        value = each.sum().item() * len(self.sources) / len(laws)
        if hard:
            value += self.weight * self.excess(self.mem(theta, hard[0]) - hard[0].mem, hard[1]).square().sum().item()
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
            slope.addmv_(jacobian.T, weight * residual)
            jacobian *= weight.sqrt()[:, None]
            matrix.addmm_(jacobian.T, jacobian)
        if hard:
            beyond = self.excess(self.mem(theta, hard[0]) - hard[0].mem, hard[1]) > 0
            hard = hard[0].take(beyond), hard[1][beyond]
        for windows, laws in _blocks(*hard) if hard else ():
            mem, jacobian = self.net.jacobian(theta, windows.x, windows.t)
            residual, bound = mem - windows.mem, self.largest[laws]
            pull = 2 * self.weight * self.excess(residual, laws) * residual.sign() / bound
            slope.addmv_(jacobian.T, pull)
            jacobian *= (math.sqrt(2 * self.weight) / bound)[:, None]
            matrix.addmm_(jacobian.T, jacobian)
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


@torch.no_grad()
def outdo(
    start: ReducedSDN,
    bounds: Tensor,
    judge: Judge,
    steps: int,
    batch: int = 54_000,
    margin: float = 0.9,
    weight: float = 3.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[ReducedSDN, Tensor]:
    """``start`` moved inside ``bounds`` as far as it goes, in float32, on the CPU; and its figures over them.

    Args:
        start: left unchanged.
        bounds: ``(2, laws)``: wrong over true spikes, and largest errors.
        judge: decides which of the networks on the way is returned.
        steps: of Levenberg and Marquardt.
        batch: windows drawn for each.
        margin: part of the bound on a largest error from which it is pulled back.
        weight: of that pull.
        seed: decides all draws.
        progress: called with the step and the figures over their bounds ``(2, laws)``, every 40 steps.

    Raises:
        UserError: numbers out of range, bounds that are not above 0, or an error that is NaN.
    """
    if not bool((bounds > 0).all()):
        raise UserError("bounds must be numbers above 0")
    if steps < 1 or batch < len(LAWS) or not 0 < margin <= 1 or not weight > 0 or seed < 0:
        raise UserError(
            f"steps and weight must be above 0, the margin between 0 and 1, the batch at least {len(LAWS)} and the "
            f"seed at least 0, not {steps}, {weight}, {margin}, {batch}, {seed}"
        )
    net, rng = WindowNet(start), np.random.default_rng(seed)
    aim = _Aim(net, [Source(law, start.tau, net.window, rng) for law in LAWS.values()], bounds, margin, weight)

    def network(theta: Tensor, dtype: torch.dtype) -> ReducedSDN:
        return ReducedSDN({n: v.to(dtype) for n, v in net.unpack(theta).items()}, start.tau, start.meta)

    theta, damping, least = net.theta, 1e-2, math.inf
    matrix, slope = theta.new_zeros(len(theta), len(theta)), torch.zeros_like(theta)
    for step in range(steps + 1):
        if step % _JUDGE_EVERY == 0 or step == steps:
            found = network(theta, torch.float32)
            over = judge(found) / bounds
            if not bool(over.isfinite().all()):
                raise UserError("the error became NaN: the start holds numbers that are too large; take another")
            if progress:
                progress(step, over)
            aim.sway *= over[0].clamp(*_SWAY)
            aim.sway.clamp_(*_RANGE)
            if (score := over.pow(16).sum().item()) < least:
                least, best, figures = score, found, over
        aim.weight = weight * min(1.0, _EASY + (1 - _EASY) * 2 * step / steps)
        if step % _SCAN_EVERY == 0:
            aim.scan(theta, network(theta, torch.float64))
        hard = aim.hard()
        now_matrix, now_slope = aim.curvature(theta, aim.draw(batch), hard)
        matrix.lerp_(now_matrix, 1 if step == 0 else 1 - _KEEP_MATRIX)
        slope.lerp_(now_slope, 1 if step == 0 else 1 - _KEEP_SLOPE)
        drawn = aim.draw(2 * batch)
        now = aim(theta, drawn, hard)
        diagonal = torch.diag(matrix.diagonal().clamp_min(1e-12 * matrix.diagonal().max()))
        trials = {}
        for trial in (damping * factor for factor in _FACTORS):
            candidate = theta - torch.linalg.solve(matrix + trial * diagonal, slope)
            trials[aim(candidate, drawn, hard)] = candidate, trial
        lowest = min(value for value in (*trials, math.inf) if value == value)
        if lowest < now:
            theta, damping = trials[lowest]
        else:
            damping *= 10
        damping = min(max(damping, 1e-8), 1e3)
    best.meta |= {"outdo_steps": steps, "outdo_batch": batch, "outdo_margin": margin, "outdo_weight": weight}
    best.meta |= {"outdo_seed": seed}
    return best, figures


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sdn.outdo",
        description="Fit a reduced SDN that is worse than another on no law of the card, by spikes and largest error.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "--than", required=True, metavar="FILE", help="a reduced SDN, or a CSV file law,wrong_over_true,largest_error"
    )
    p.add_argument("--save", required=True, metavar="FILE", help="reduced SDN to write, safetensors")
    p.add_argument("--tau", type=float, default=0.125, help="decay a step")
    p.add_argument("--start", default="constructed", metavar="FILE", help="reduced SDN to begin with")
    p.add_argument("--d_model", type=int, default=6, help="channels of a constructed start")
    p.add_argument("--k", "--kernel_size", dest="kernel_size", type=int, default=4, help="its window")
    p.add_argument("--n_layers", type=int, default=2, help="its layers, one or two")
    p.add_argument("--width", type=float, default=0.04, help="of its ramps, in thresholds")
    p.add_argument("--reach", type=float, default=96.0, help="potentials from -reach on pass unchanged at the start")
    p.add_argument("--steps", type=int, default=800, help="Levenberg-Marquardt steps")
    p.add_argument("--batch", type=int, default=54_000, help="windows drawn for a step")
    p.add_argument("--margin", type=float, default=0.9, help="part of a bound on a largest error to stay below")
    p.add_argument("--weight", type=float, default=3.0, help="of what exceeds that part")
    p.add_argument("--seed", type=int, default=0, help="of all draws")
    return p


@door
def main(argv: list[str] | None = None) -> None:
    """The command ``python -m sdn.outdo``."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    from ..weights import load_reduced, save_reduced
    from .construct import construct

    if args.start == "constructed":
        sizes = args.d_model, args.kernel_size, args.width, args.reach
        start = construct(args.tau, *sizes, seed=args.seed, n_layers=args.n_layers)
    else:
        start = load_reduced(args.start, args.tau)
    judge = Judge(args.tau, args.seed + _JUDGED_BY)
    bounds = read_bounds(args.than, args.tau, judge)
    torch.set_num_threads(1)  # the order of sums, and so the last bits of the result, depend on it
    began = time.monotonic()

    def progress(step: int, over: Tensor) -> None:
        wrong, largest = over.max(1).values.tolist()
        print(" ".join(f"{v:.2f}" for v in over[0].tolist()), "|", " ".join(f"{v:.2f}" for v in over[1].tolist()))
        print(
            f"step {step}/{args.steps}: at most {wrong:.2f} of a bound on wrong spikes, {largest:.2f} of one on the "
            f"largest error, {time.monotonic() - began:.0f} s",
            flush=True,
        )

    options = args.steps, args.batch, args.margin, args.weight, args.seed
    sdn, over = outdo(start, bounds, judge, *options, progress=progress)
    sdn.meta["command"] = " ".join(["python -m sdn.outdo", *map(shlex.quote, argv)])
    save_reduced(sdn, args.save)
    for law, wrong, largest in zip(LAWS, *over.tolist(), strict=True):
        print(f"{law}: {wrong:.2f} of the bound on wrong spikes, {largest:.2f} of that on the largest error")
    print(f"{args.save}: tau {args.tau}, {sdn.n_weights()} weights, at most {over.max():.2f} of a bound")
