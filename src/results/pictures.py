"""What the pictures beside the tables share: the name of a row, and how a figure is finished and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sdn.files import atomic_path


def label(row: Mapping[str, Any]) -> str:
    """The row's name, as plain text."""
    return str(row.get("label", row["runs"])).replace("`", "")


def write(figure: Figure, path: Path) -> None:
    """A light grid, no frame, and the file."""
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    figure.set_layout_engine("constrained")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
