"""A network that is worse than another on no law of the card, by second-order steps towards 18 bounds at once.

:mod:`sdn.fitting.refine` lowers the mean error on one kind of input. Here all laws count, each by the share of wrong
spikes it may have (E_l: expected wrong over true spikes, w_l: the bound on it), beside what exceeds a part of the bound
B_l on the largest error, in windows kept from scan to scan because they were the worst::

    F = sum_l sway_l E_l / w_l  +  weight sum_l sum_i max(0, |r_i| / (margin B_l) - 1)^2      (see sdn.fitting.aim)

Steps are those of Levenberg and Marquardt, with E reweighted to squares as in :mod:`sdn.fitting.refine`. Judged, every
40 steps, is the float32 network on fixed fresh sequences: the one that is furthest inside its bounds is kept, and laws
outside theirs get more sway. The weight is a tenth in the first half of the steps. Which units take which part is
decided early and by chance: another seed may come further.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, door
from ..network import ReducedSDN
from . import marquardt
from .aim import Aim
from .bounds import Judge, read_bounds
from .card import LAWS
from .hard_windows import Source
from .windows import WindowNet

Progress = Callable[[int, Tensor], None]  # step, figures over bounds (2, laws)

_SCAN_EVERY, _JUDGE_EVERY = 4, 40
_SWAY, _RANGE = (0.7, 2.0), (0.3, 10.0)  # of a law's sway, from judgement to judgement and in all
_INSIDE = 0.9  # of a bound on wrong spikes: a figure that leaves the sway as it is
_EASY = 0.1  # part of the weight of the largest errors in the first half
_SCORE = 16  # power of the mean of the figures over their bounds that networks are compared by
_KEEP_MATRIX, _KEEP_SLOPE = 0.7, 0.5
_DAMPING, _LIMITS = 1e-2, (1e-8, 1e3)  # lambda at the first step, and what it stays within
_JUDGED_BY = 1000  # added to the seed of the sequences that decide


@torch.no_grad()
def outdo(
    start: ReducedSDN,
    bounds: Tensor,
    judge: Judge,
    steps: int,
    batch: int = 54_000,
    margin: float = 0.9,
    weight: float = 30.0,
    seed: int = 0,
    progress: Progress = lambda step, over: None,
) -> tuple[ReducedSDN, Tensor]:
    """``start`` moved inside ``bounds`` as far as it goes, in float32; and its figures over them.

    Args:
        start: left unchanged.
        bounds: ``(2, laws)``: wrong over true spikes, and largest errors.
        judge: decides which of the networks on the way is returned.
        steps: of Levenberg and Marquardt.
        batch: windows drawn for a step.
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
            f"seed at least 0, not {steps}, {weight}, {margin}, {batch} and {seed}"
        )
    descent = _Descent(start, bounds, judge, batch, margin, np.random.default_rng(seed))
    weights = [weight if 2 * step >= steps else _EASY * weight for step in range(steps)]
    found, over = descent.run(weights, progress)
    found.meta |= {"outdo_steps": steps, "outdo_batch": batch, "outdo_margin": margin, "outdo_weight": weight}
    found.meta |= {"outdo_seed": seed}
    return found, over


def _score(over: Tensor) -> float:
    return over.pow(_SCORE).mean().item()


class _Descent:
    """Levenberg-Marquardt steps from one start."""

    def __init__(
        self,
        start: ReducedSDN,
        bounds: Tensor,
        judge: Judge,
        batch: int,
        margin: float,
        rng: np.random.Generator,
    ) -> None:
        self.start, self.bounds, self.judge, self.batch = start, bounds, judge, batch
        self.net = WindowNet(start)
        sources = [Source(law, start.tau, self.net.window, rng) for law in LAWS.values()]
        self.aim = Aim(self.net, sources, bounds, margin)
        self.theta, self.damping = self.net.theta, _DAMPING
        self.matrix, self.slope = self.theta.new_zeros(len(self.theta), len(self.theta)), torch.zeros_like(self.theta)

    def network(self, dtype: torch.dtype) -> ReducedSDN:
        tensors = {name: value.to(dtype) for name, value in self.net.unpack(self.theta).items()}
        return ReducedSDN(tensors, self.start.tau, self.start.meta)

    def run(self, weights: Sequence[float], progress: Callable[[int, Tensor], None]) -> tuple[ReducedSDN, Tensor]:
        """A step with each of ``weights``; the network that was judged best on the way, the start and the end included,
        and its figures."""
        judged: list[tuple[ReducedSDN, Tensor]] = []
        steps = len(weights)
        for step in range(steps + 1):
            if step % _JUDGE_EVERY == 0 or step == steps:
                found = self.network(torch.float32)
                over = self.judge(found) / self.bounds
                if not bool(over.isfinite().all()):
                    raise UserError("the error became NaN: the start holds numbers that are too large; take another")
                progress(step, over)
                judged.append((found, over))
                self.aim.sway = (self.aim.sway * (over[0] / _INSIDE).square().clamp(*_SWAY)).clamp(*_RANGE)
            if step < steps:
                if step % _SCAN_EVERY == 0:
                    self.aim.scan(self.theta, self.network(torch.float64))
                self.aim.weight = weights[step]
                self.step(step == 0)
        return min(judged, key=lambda end: _score(end[1]))

    def step(self, first: bool) -> None:
        """One step, if one of several dampings lowers F on other windows than those it was found on."""
        aim, hard = self.aim, self.aim.hard()
        matrix, slope = aim.curvature(self.theta, aim.draw(self.batch), hard)
        self.matrix.lerp_(matrix, 1 if first else 1 - _KEEP_MATRIX)
        self.slope.lerp_(slope, 1 if first else 1 - _KEEP_SLOPE)
        drawn = aim.draw(2 * self.batch)
        now = aim(self.theta, drawn, hard)
        error = functools.partial(aim, drawn=drawn, hard=hard)
        self.theta, self.damping = marquardt.step(
            self.theta, self.matrix, self.slope, self.damping, _LIMITS, now, error
        )


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
    p.add_argument("--steps", type=int, default=1000, help="Levenberg-Marquardt steps")
    p.add_argument("--batch", type=int, default=54_000, help="windows drawn for a step")
    p.add_argument("--margin", type=float, default=0.9, help="part of a bound on a largest error to stay below")
    p.add_argument("--weight", type=float, default=30.0, help="of what exceeds that part")
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
