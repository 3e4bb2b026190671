"""``python -m src.demo_stream CKPT``: a digit arrives pixel by pixel; spikes and class probabilities move.

The network runs as a stream, one step a pixel with constant memory, and every frame shows what it knows so far.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sdn.errors import UserError, door

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from models.spike.network import Network


@door
def main(argv: list[str] | None = None) -> None:
    """Draw one sample of the test set of a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m src.demo_stream", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="outputs/demo/digits-sdn/checkpoints/best.ckpt",
                        help="a classifier of images read pixel by pixel (default: the demo's)")  # fmt: skip
    parser.add_argument("--sample", type=int, default=0, help="which sample of the test set")
    parser.add_argument("--out", type=Path, default=Path("outputs/stream.gif"), help="NAME.gif")
    parser.add_argument("--every", type=int, default=1, help="pixels between two frames")
    parser.add_argument("--fps", type=int, default=10, help="frames a second")
    options = parser.parse_args(argv)
    if options.out.suffix != ".gif":
        raise UserError(f"the picture is a GIF; --out must end in .gif, not {options.out.name!r}")
    if options.every < 1 or options.fps < 1:
        raise UserError("--every and --fps must be at least 1")
    from src.export import network_of
    from src.restore import restore

    module, data = restore(options.checkpoint)
    if not 0 <= options.sample < len(data.test):
        raise UserError(f"--sample must lie in 0 .. {len(data.test) - 1}, not {options.sample}")
    x, y = data.test[options.sample]
    if x.dim() != 2 or x.shape[1] != 1:
        raise UserError("this picture draws signals of one number a step; the checkpoint's data are of another kind")
    spikes, probabilities = stream(network_of(module), x)
    animate(x[:, 0].numpy(), spikes, probabilities, int(y), options.out, options.every, options.fps)
    verdict = probabilities[-1].argmax()
    print(f"wrote {options.out}: a {int(y)}, read as {verdict} with probability {probabilities[-1].max():.2f}")


def stream(network: Network, x: torch.Tensor) -> tuple[list[NDArray], NDArray]:
    """Run ``x (L, d_input)`` step by step: spikes ``(L, H)`` bool of each layer, probabilities ``(L, C)``."""
    import numpy as np

    layers = network.backbone.layers
    fired: list[list[NDArray]] = [[] for _ in layers]
    steps = [layer.neuron.step for layer in layers]

    def recorded(i: int) -> object:
        def step(current: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            s, after = steps[i](current, u)
            fired[i].append(s[0].bool().numpy())
            return s, after

        return step

    for i, layer in enumerate(layers):
        layer.neuron.step = recorded(i)
    try:
        state, constants, out = network.initial_state(), network.backbone.recurrence(), []
        for x_t in x:
            logits, state = network.step(x_t.unsqueeze(0), state, constants)
            out.append(logits[0].softmax(0).numpy())
    finally:
        for layer in layers:
            del layer.neuron.step
    return [np.stack(rows) for rows in fired], np.stack(out)


def animate(
    signal: NDArray, spikes: list[NDArray], probabilities: NDArray, target: int, path: Path, every: int, fps: int
) -> None:
    """Write the GIF: the image so far, the raster so far, the probabilities now."""
    import math

    import numpy as np
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sdn.files import atomic_path
    from src.report.figures import INK, SOFT, SPIKE

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


if __name__ == "__main__":
    sys.exit(main())
