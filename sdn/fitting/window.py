"""Error against window and width: what more taps and more channels buy, and what they cannot.

``python -m sdn.window`` constructs and refines a network for each (k, d) on white noise, and measures it on white noise
and on slow drive near the threshold, next to the exact recurrence over the last K inputs. It writes a table (CSV) and
the picture of the model cards.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ..errors import UserError, door
from ..files import atomic_path, write_text
from .card import LAWS, SLOW, WHITE, draw
from .construct import construct
from .metrics import evaluate, truncated
from .refine import refine

Row = dict[str, float | int | str]
EXACT = "exact"


def measure(tau: float, windows: Sequence[int], widths: Sequence[int], steps: int, sequences: int) -> list[Row]:
    """Wrong over true spikes and MAE by law, window k and width d ("exact": the recurrence over the last k inputs)."""
    tests = {law: draw(LAWS[law], tau, sequences, 1024, seed=2) for law in (WHITE, SLOW)}
    current, mem, _ = draw(LAWS[WHITE], tau, sequences, 1024, seed=3)
    rows: list[Row] = []
    for k in windows:
        for d in (None, *widths):
            predict: Callable[[Tensor], Tensor] = (
                partial(truncated, tau=tau, last=k)
                if d is None
                else refine(construct(tau, d, k), [(current, mem)], steps, batch=10_000)
            )
            for law, test in tests.items():
                score = evaluate(predict, *test)
                row: Row = {"law": law, "window": k, "width": EXACT if d is None else d}
                row |= {"wrong_over_true": score.ratio, "mae": score.mae_mean}
                rows.append(row)
                print(*(f"{key} {value}" for key, value in row.items()), flush=True)
    return rows


def picture(rows: Sequence[Row], tau: float, path: str | os.PathLike[str]) -> None:
    """One panel a law; both axes logarithmic, with zero at the floor of the panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, law in zip(figure.subplots(1, 2, sharey=True), (WHITE, SLOW), strict=True):
        for i, width in enumerate(dict.fromkeys(row["width"] for row in rows)):
            line = [row for row in rows if row["law"] == law and row["width"] == width]
            exact = width == EXACT
            ax.plot(
                [row["window"] for row in line],
                [row["wrong_over_true"] for row in line],
                "k--s" if exact else f"C{i - 1}-o",
                markersize=4,
                label="exact recurrence over the window" if exact else f"SDN, d = {width}",
            )
        ax.set_xscale("log", base=2)
        ax.set_yscale("symlog", linthresh=1e-5)
        ax.set_ylim(0, 1)
        windows = sorted({row["window"] for row in rows})
        ax.set_xticks(windows, windows)
        ax.set_title(law, fontsize=10)
        ax.set_xlabel("window: inputs before t")
        ax.grid(alpha=0.3)
    figure.axes[0].set_ylabel("wrong / true spikes")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"tau = {tau}: what a longer window and more channels buy", fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


@door
def main(argv: list[str] | None = None) -> None:
    """The command ``python -m sdn.window``."""
    p = argparse.ArgumentParser(prog="python -m sdn.window", description=__doc__.split("\n\n")[0])
    p.add_argument("--output", default="sdn/pretrained/window_and_width.png", help="picture; the table lies beside it")
    p.add_argument("--tau", type=float, default=0.125)
    p.add_argument("--windows", type=int, nargs="+", default=[1, 2, 3, 4, 8, 16], help="k")
    p.add_argument("--widths", type=int, nargs="+", default=[3, 5, 8, 12], help="d, at least 3")
    p.add_argument("--steps", type=int, default=60, help="of refinement")
    p.add_argument("--sequences", type=int, default=500, help="of 1024 steps, to fit to and to measure on")
    args = p.parse_args(argv)
    if min(args.windows) < 1 or args.sequences < 10:
        raise UserError("windows must be at least 1, sequences at least 10")
    rows = measure(args.tau, args.windows, args.widths, args.steps, args.sequences)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(Path(args.output).with_suffix(".csv"), table.getvalue())
    picture(rows, args.tau, args.output)
    print(args.output)
