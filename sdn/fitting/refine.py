"""Second-order refinement of a reduced SDN: Levenberg-Marquardt on its weights, in float64.

First-order training stalls where the function jumps, at u' = 1: the units have to be steep, and their weights large
and finely balanced. With so few weights the curvature is a small matrix, so each step solves for all of them at once.

The error is the smoothed mean absolute one, whose expectation under white noise is, but for a factor, the expected
number of wrong spikes: a spike goes wrong when x_t falls between 1 - m and 1 - m', so with probability ~ p(1) |m - m'|.
Reweighting makes it a least-squares problem (r: residual, J: its Jacobian, eps: smoothing, D: diagonal of J'WJ)::

    W = 1 / sqrt(r^2 + eps^2),    (J'WJ + lambda D) step = -J'W r

J'WJ and J'Wr are running means over the last steps, each of which adds fresh windows from the data, so that few windows
a step suffice. Every step is tried with several lambdas on yet other windows; the best is taken if the error on those
falls, and lambda follows it. The weights that did best on held-out windows, rounded to the type they are kept in, are
returned.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import UserError, door
from ..network import ReducedSDN
from . import marquardt
from .windows import WindowNet

Data = tuple[Tensor, Tensor]  # current and mem, both (N, L)
Windows = tuple[Tensor, Tensor, Tensor]  # inputs (n, R) before the steps (n,), and mem (n,) there
Progress = Callable[[int, float], None]  # step, held-out error

_BLOCK = 8192  # windows whose Jacobian is held at once: 10 MB
_HELD_OUT, _CHECK_EVERY = 200_000, 10
_JUDGE = 2  # times the windows: judging is 30 times as cheap as the curvature
_DAMPING = (1e-9, 1e2)  # limits of lambda
# Share of the past in the running means of J'WJ and J'Wr.
_KEEP_MATRIX, _KEEP_SLOPE = 0.9, 0.8


def _draw(data: Sequence[Data], window: int, n: int, generator: torch.Generator) -> Windows:
    """``n`` windows before random steps of random sequences; equal shares of the sets."""
    windows, steps, targets = [], [], []
    for i, (current, mem) in enumerate(data):
        share = n // len(data) + (i < n % len(data))
        row = torch.randint(current.shape[0], (share,), generator=generator)
        t = torch.randint(current.shape[1], (share,), generator=generator)
        column = t[:, None] - window + torch.arange(window)
        windows.append(current[row[:, None], column.clamp_min(0)].double() * (column >= 0))
        steps.append(t)
        targets.append(mem[row, t].double())
    return torch.cat(windows), torch.cat(steps), torch.cat(targets)


def _error(net: WindowNet, theta: Tensor, x: Tensor, t: Tensor, target: Tensor, smoothing: float) -> float:
    residual = net.in_blocks(theta, x, t, _BLOCK) - target
    return (torch.hypot(residual, torch.tensor(smoothing, dtype=residual.dtype)) - smoothing).mean().item()


def _curvature(
    net: WindowNet, theta: Tensor, x: Tensor, t: Tensor, target: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """``(J'WJ (P, P), J'Wr (P,))`` summed over the windows block by block."""
    matrix, slope = theta.new_zeros(len(theta), len(theta)), torch.zeros_like(theta)
    for *block, aim in zip(x.split(_BLOCK), t.split(_BLOCK), target.split(_BLOCK), strict=True):
        mem, jacobian = net.jacobian(theta, *block)
        residual = mem - aim
        weight = (residual.square() + smoothing**2).rsqrt()
        marquardt.add(matrix, slope, jacobian, weight.sqrt(), weight * residual)
    return matrix, slope


@torch.no_grad()
def refine(
    sdn: ReducedSDN,
    data: Sequence[Data],
    steps: int,
    batch: int = 30_000,
    smoothing: float = 1e-3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
    before_step: Callable[[], object] = lambda: None,
) -> ReducedSDN:
    """A better ``sdn`` of the same size, on the CPU, in ``dtype``; 100 steps take some 20 s of one core.

    Args:
        sdn: start; left unchanged.
        data: one or more pairs ``(current, mem)``, each ``(N, L)``; they count equally. A tenth is held out.
        steps: Levenberg-Marquardt steps.
        batch: windows drawn for each.
        smoothing: error below which the absolute value is rounded to a square.
        seed: decides all draws.
        progress: called with the step and the mean held-out error, every 10 steps.
        before_step: called before every step; what it raises ends the refinement.

    Raises:
        UserError: no data, too few sequences, numbers out of range, or an error that is NaN.
    """
    if steps < 1 or batch < 1 or not smoothing > 0:
        raise UserError(f"steps, batch and smoothing must be positive, not {steps}, {batch}, {smoothing}")
    if not data or any(len(current) < 10 for current, _ in data):
        raise UserError("refinement needs data sets of at least 10 sequences, a tenth of which it holds out")
    held = [(current[: len(current) // 10], mem[: len(mem) // 10]) for current, mem in data]
    data = [(current[len(current) // 10 :], mem[len(mem) // 10 :]) for current, mem in data]
    net, generator = WindowNet(sdn), torch.Generator().manual_seed(seed)
    check = _draw(held, net.window, _HELD_OUT, generator)

    def held_out(theta: Tensor) -> float:
        return _error(net, theta.to(dtype).double(), *check, smoothing)

    theta = best = net.theta
    matrix, slope = theta.new_zeros(len(theta), len(theta)), torch.zeros_like(theta)
    least, damping = held_out(theta), 1e-2
    for step in range(1, steps + 1):
        before_step()
        now_matrix, now_slope = _curvature(net, theta, *_draw(data, net.window, batch, generator), smoothing)
        matrix.lerp_(now_matrix, (1 - _KEEP_MATRIX) / (1 - _KEEP_MATRIX**step))
        slope.lerp_(now_slope, (1 - _KEEP_SLOPE) / (1 - _KEEP_SLOPE**step))
        x, t, target = _draw(data, net.window, _JUDGE * batch, generator)
        now = _error(net, theta, x, t, target, smoothing)
        if now != now:
            raise UserError("the error became NaN: the data or the start holds NaN; make the data again")
        error_of = functools.partial(_error, net, x=x, t=t, target=target, smoothing=smoothing)
        theta, damping = marquardt.step(theta, matrix, slope, damping, _DAMPING, now, error_of)
        if step % _CHECK_EVERY == 0 or step == steps:
            error = held_out(theta)
            if error < least:
                least, best = error, theta
            if progress:
                progress(step, error)
    facts = {"refine_steps": steps, "refine_batch": batch, "refine_seed": seed, "refine_smoothing": smoothing}
    return ReducedSDN({n: v.to(dtype) for n, v in net.unpack(best).items()}, sdn.tau, sdn.meta | facts)


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sdn.refine",
        description="Second-order refinement of a reduced SDN on data sets of generate.py.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--training", nargs="+", required=True, metavar="FILE", help="data sets; they count equally")
    p.add_argument("--save", required=True, metavar="FILE", help="reduced SDN to write, safetensors")
    p.add_argument(
        "--start",
        default="constructed",
        metavar="FILE",
        help='reduced SDN to begin with, such as DIR/sdn.safetensors of a fit; "constructed": the equations as units',
    )
    p.add_argument("--d_model", type=int, default=8, help="channels of a constructed start")
    p.add_argument("--k", "--kernel_size", dest="kernel_size", type=int, default=8, help="its window")
    p.add_argument("--n_layers", type=int, default=1, help="its layers, one or two")
    p.add_argument("--steps", type=int, default=600, help="Levenberg-Marquardt steps")
    p.add_argument("--batch", type=int, default=30_000, help="windows drawn for a step")
    p.add_argument("--smoothing", type=float, default=1e-3, help="error below which |error| is rounded to a square")
    p.add_argument("--seed", type=int, default=0, help="of all draws")
    return p


@door
def main(argv: list[str] | None = None) -> None:
    """The command ``python -m sdn.refine``."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    from ..weights import load_reduced, save_reduced
    from .construct import construct
    from .data import load

    sets = [load(path) for path in args.training]
    tau = sets[0].tau
    for path, data in zip(args.training, sets, strict=True):
        if data.tau != tau:
            raise UserError(
                f"{path} holds neurons with tau {data.tau}, the first file with {tau}; use files of one tau"
            )
    if args.start == "constructed":
        start = construct(tau, args.d_model, args.kernel_size, seed=args.seed, n_layers=args.n_layers)
    else:
        start = load_reduced(args.start, tau)
    torch.set_num_threads(1)  # the order of sums, and so the last bits of the result, depend on it
    began = time.monotonic()

    def progress(step: int, error: float) -> None:
        print(f"step {step}/{args.steps}: held-out error {error:.3e}, {time.monotonic() - began:.0f} s", flush=True)

    pairs = [(data.input, data.mem) for data in sets]
    sdn = refine(start, pairs, args.steps, args.batch, args.smoothing, args.seed, progress=progress)
    sdn.meta["refine_data"] = [data.header | dict(zip("NT", data.input.shape, strict=True)) for data in sets]
    sdn.meta["command"] = " ".join(["python -m sdn.refine", *map(shlex.quote, argv)])
    save_reduced(sdn, args.save)
    print(f"{args.save}: tau {tau}, {sdn.n_weights()} weights")
