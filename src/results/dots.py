"""Figures of a table's rows side by side: a dot a seed, a stroke at their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from src.results.pictures import label, write
from src.results.tables import value


def draw(path: Path, table: Mapping[str, Any], records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the picture of the figures ``table["dots"]`` (such as ``test/accuracy``), a panel each, a line a row."""
    rows = [row for row in table["rows"] if "runs" in row]
    heads = {column["show"]: column for column in table["columns"]}
    figure = Figure(figsize=(3 + 2.6 * len(table["dots"]), 0.8 + 0.32 * len(rows)))
    axes = figure.subplots(1, len(table["dots"]), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, table["dots"], strict=True):
        scale = heads.get(name, {}).get("scale", 1)
        for place, row in enumerate(rows):
            found = [scale * value(run, name) for run in records[row["runs"]]]
            ax.scatter(found, [place] * len(found), s=18, color=f"C{place}", alpha=0.7)
            ax.scatter([sum(found) / len(found)], [place], s=120, marker="|", color=f"C{place}")
        ax.set_xlabel(heads.get(name, {}).get("head", name))
    axes[0].set_yticks(range(len(rows)), [label(row) for row in rows])
    axes[0].invert_yaxis()
    write(figure, path)
