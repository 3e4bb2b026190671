"""What a table is made of, and how it is printed, written and drawn."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from sdn.files import atomic_path, write_text

from .timing import Measured


@dataclass
class Row:
    """One candidate in one case: milliseconds (median), quartiles ``low`` and ``high``, 99th percentile.

    ``ratio``: how many times faster than ``against`` in the same interleaved run. Rows of a ``group`` are drawn
    against ``x`` in one picture. ``agree``: share of answers that are those of the candidate ``ours``.
    """

    table: str
    case: str
    name: str
    milliseconds: float
    low: float
    high: float
    p99: float | None
    ratio: float
    against: str
    peak_mib: float | None = None
    memory_ratio: float | None = None
    group: str = ""
    x: float = 0
    streams: int | None = None
    firing_rate: float | None = None
    working_set_mib: float | None = None
    agree: float | None = None


def rows_of(
    table: str, case: str, measured: dict[str, Measured], against: str, x: float = 0, group: str = "", **facts: Any
) -> Iterator[Row]:
    """Rows of one case, with ratios to the candidate ``against`` (above 1: faster, or smaller)."""
    base = measured[against]
    for name, m in measured.items():
        peak = None if m.peak_bytes is None else m.peak_bytes / 2**20
        smaller = base.peak_bytes / max(m.peak_bytes, 1) if base.peak_bytes and m.peak_bytes is not None else None
        yield Row(
            table, case, name, *m.milliseconds, base.seconds / m.seconds, against, peak, smaller, group, x, **facts
        )


def show(rows: Sequence[Row], console: Console) -> None:
    """Print one table per case."""
    for case in dict.fromkeys((row.table, row.case) for row in rows):
        mine = [row for row in rows if (row.table, row.case) == case]
        table = Table(title=f"{case[0]}: {case[1]}", title_justify="left")
        last = ("99 %", "agree") if mine[0].streams else ("peak MiB", "smaller, times")
        for column in ("", "median ms", "quartiles", f"speed, times {mine[0].against}", *last):
            table.add_column(column, justify="right" if column else "left")
        for row in mine:
            quartiles = f"{row.low:.4g} .. {row.high:.4g}"
            memory = ("-", "-") if row.peak_mib is None else (f"{row.peak_mib:.1f}", _times(row.memory_ratio))
            end = (_times(row.p99), _times(row.agree)) if row.streams else memory
            table.add_row(row.name, f"{row.milliseconds:.4g}", quartiles, _times(row.ratio), *end)
        console.print(table)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3g}"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All rows as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def write_conditions(found: dict[str, Any], path: Path) -> None:
    """Machine, versions and load beside the table, as JSON."""
    write_text(path, json.dumps(found, indent=1) + "\n")


def draw(rows: Sequence[Row], path: Path, title: str, xlabel: str) -> None:
    """Time (and memory, where known) against ``x``, both axes logarithmic, one line per candidate."""
    known = any(row.peak_mib for row in rows)
    figure = Figure(figsize=(11 if known else 6, 4.2))
    axes = figure.subplots(1, 2 if known else 1, squeeze=False)
    for name in dict.fromkeys(row.name for row in rows):
        mine = sorted((row for row in rows if row.name == name), key=lambda row: row.x)
        style = {"linestyle": ":", "color": "gray"} if name.startswith("floor") else {"marker": "o"}
        axes[0, 0].loglog([r.x for r in mine], [r.milliseconds for r in mine], label=name, **style)
        if known and not name.startswith("floor"):
            axes[0, 1].loglog([r.x for r in mine], [max(r.peak_mib or 0, 0.1) for r in mine], **style)
    for ax, label in zip(axes[0], ("median ms", "peak MiB above the inputs"), strict=False):
        ax.set(xlabel=xlabel, ylabel=label)
        ax.grid(alpha=0.3, which="both")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=140)
