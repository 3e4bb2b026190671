"""Pictures of a fit, written as PNG files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..files import atomic_path
from .data import NeuronData

_TRUE, _PREDICTED, _INPUT = "#1b6ca8", "#d1495b", "#8a8f98"


def curves(
    history: Sequence[Mapping[str, float]],
    baselines: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike[str],
    reduced: float | None = None,
) -> None:
    """Loss and wrong over true spikes by epoch, the baselines as lines; both axes logarithmic.

    ``reduced``: wrong over true spikes of the network that is saved in the end, on the test set; a star after the last
    epoch.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, wrong = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    style = {"marker": "o", "markersize": 3} if len(epochs) < 20 else {}
    loss.plot(epochs, [row["train_loss"] for row in history], color=_INPUT, label="training", **style)
    loss.plot(epochs, [row["val_loss"] for row in history], color=_PREDICTED, label="validation", **style)
    loss.set(title="SmoothL1 loss", xlabel="epoch", yscale="log")
    ratios = [row["val_wrong_over_true"] for row in history]
    wrong.plot(epochs, ratios, color=_PREDICTED, label="SDN, validation", **style)
    if reduced is not None:
        end = epochs[-1] + max(1.0, 0.06 * (epochs[-1] - epochs[0]))
        wrong.plot([epochs[-1], end], [ratios[-1], reduced], color=_PREDICTED, linestyle=":", linewidth=1)
        wrong.plot(
            [end], [reduced], "*", color=_PREDICTED, markersize=10, label=f"reduced, refined, test: {reduced:.2g}"
        )
    for (name, row), line in zip(baselines.items(), ("--", ":"), strict=False):
        wrong.axhline(row["wrong_over_true"], color=_TRUE, linestyle=line, label=name)
    wrong.set(title="wrong spikes over true spikes", xlabel="epoch")
    wrong.set_yscale("symlog", linthresh=1e-5)
    wrong.set_ylim(bottom=0)
    for axes in (loss, wrong):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(
            frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8
        )  # no curve there
    _save(figure, path)


@torch.no_grad()
def prediction(
    predict: Callable[[Tensor], Tensor],
    data: NeuronData,
    path: str | os.PathLike[str],
    traces: int = 3,
    steps: int = 100,
) -> None:
    """Input, true and predicted potential, true and predicted spikes of the first sequences of ``data``."""
    current = data.input[:traces, :steps]
    mem, spike = data.mem[:traces, :steps], data.spike[:traces, :steps] > 0
    guess = predict(current)
    fired = guess + current >= 1
    figure = Figure(figsize=(4.5 * len(current), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(current), sharex=True, squeeze=False, height_ratios=[2, 2, 1])
    time = range(current.shape[1])
    for i, (drive, potential, raster) in enumerate(axes.T):
        drive.plot(time, current[i], color=_INPUT, linewidth=1)
        drive.axhline(1, color="black", linewidth=0.5, linestyle=":")
        drive.set_title(f"test sequence {i}: {int((spike[i] != fired[i]).sum())} of {int(spike[i].sum())} spikes wrong")
        potential.plot(time, mem[i], color=_TRUE, linewidth=2, label="true")
        potential.plot(time, guess[i], color=_PREDICTED, linewidth=1, label="predicted")
        rows = [torch.nonzero(spike[i]).flatten().tolist(), torch.nonzero(fired[i]).flatten().tolist()]
        raster.eventplot(rows, lineoffsets=[1, 0], linelengths=0.8, colors=[_TRUE, _PREDICTED])
        raster.set(yticks=[1, 0], yticklabels=["true", "predicted"], xlabel="time step")
    axes[0, 0].set_ylabel("input (thresholds)")
    axes[1, 0].set_ylabel("mem = tau u")
    axes[1, 0].legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1)
    axes[2, 0].set_ylabel("spikes")
    _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
