"""Learning curves of a table's rows: the mean over the seeds, and the range between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.results.pictures import label, write


def draw(path: Path, table: Mapping[str, Any], records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the picture of ``table["curve"]`` (such as ``val/accuracy``) against the epoch, a line a row."""
    figure = Figure(figsize=(7, 3.8))
    ax = figure.subplots()
    scale = next((c.get("scale", 1) for c in table["columns"] if "/" in c["show"]), 1)
    for row in table["rows"]:
        if "runs" not in row:
            continue
        epochs, values = curve(records[row["runs"]], table["curve"])
        line = ax.plot(epochs, scale * values.mean(0), lw=1.5, label=label(row))
        if len(values) > 1:
            ax.fill_between(
                epochs, scale * values.min(0), scale * values.max(0), color=line[0].get_color(), alpha=0.2, lw=0
            )
    ax.set(xlabel="epoch", ylabel=table["curve"] + (", %" if scale == 100 else ""))
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    write(figure, path)


def curve(runs: Sequence[Mapping[str, Any]], figure: str) -> tuple[NDArray, NDArray]:
    """Epochs (from 1) and the figure ``(seeds, epochs)``, as far as every seed has it."""
    columns = []
    for run in runs:
        pairs = zip(run["epochs"]["epoch"], run["epochs"].get(figure, []), strict=False)
        columns.append([(epoch + 1, found) for epoch, found in pairs if found is not None])
    shortest = min(len(column) for column in columns)
    epochs = np.array([epoch for epoch, _ in columns[0][:shortest]], float)
    return epochs, np.array([[found for _, found in column[:shortest]] for column in columns], float)
