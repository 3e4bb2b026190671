"""A sample that arrives step by step as a GIF: what was read, the spikes of every layer, the class probabilities."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sdn.files import atomic_path
from src.evaluation.report.figures import INK, SOFT, SPIKE


def animate(
    signal: NDArray, spikes: list[NDArray], probabilities: NDArray, target: int, path: Path, every: int, fps: int
) -> None:
    """Write the GIF: the image so far, the raster so far, the probabilities now."""
    L, side = len(signal), math.isqrt(len(signal))
    figure = Figure(figsize=(8, 3.6))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(spikes), 3, width_ratios=[1, 1.7, 1])
    image, bars = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[:, 2])
    rasters = [figure.add_subplot(grid[i, 1]) for i in range(len(spikes))]
    square = side * side == L
    pixels = np.full((side, side) if square else (1, L), np.nan)
    aspect = "equal" if square else "auto"
    shown = image.imshow(pixels, cmap="gray_r", vmin=0, vmax=float(np.nanmax(signal)) or 1.0, aspect=aspect)
    image.set(xticks=[], yticks=[], title="what has arrived")
    dots = []
    for i, (ax, s) in enumerate(zip(rasters, spikes, strict=True)):
        dots.append(ax.plot([], [], "|", color=SPIKE, ms=2.5)[0])
        ax.set(xlim=(-0.5, L - 0.5), ylim=(-1, s.shape[1]), yticks=[], ylabel=f"layer {i}")
        ax.tick_params(labelbottom=i == len(spikes) - 1)
    rasters[0].set_title("spikes")
    rasters[-1].set_xlabel("pixel")
    classes = probabilities.shape[1]
    colors = [INK if c == target else SOFT for c in range(classes)]
    columns = bars.barh(range(classes), np.zeros(classes), color=colors)
    bars.set(xlim=(0, 1), yticks=range(classes), title="class probability")
    bars.invert_yaxis()
    figure.tight_layout()

    def frame(t: int) -> list:
        flat = np.full(L, np.nan)
        flat[: t + 1] = signal[: t + 1]
        shown.set_data(flat.reshape(pixels.shape))
        for dot, s in zip(dots, spikes, strict=True):
            dot.set_data(*np.nonzero(s[: t + 1]))
        for column, p in zip(columns, probabilities[t], strict=True):
            column.set_width(p)
        return [shown, *dots, *columns]

    frames = list(range(0, L, every))
    frames += [L - 1] * fps  # a second to look at the end
    with atomic_path(path) as temporary:
        drawn = temporary.with_name(temporary.name + ".gif")  # the writer goes by the ending
        try:
            FuncAnimation(figure, frame, frames).save(drawn, writer=PillowWriter(fps), dpi=80)
            drawn.replace(temporary)
        finally:
            drawn.unlink(missing_ok=True)
