"""The pictures of the reports, each from plain arrays to one matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

_DRAWN = 4000
INK, SPIKE, SOFT = "#24324a", "#b3421f", "#8fa3b8"


def _bare(ax: object) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def legend_above(ax: object, columns: int = 4) -> None:
    """Above the axes, where no curve is."""
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderaxespad=0.2)


def raster(layers: Sequence[NDArray], signal: NDArray | None = None, most: int = 64) -> Figure:
    """Spikes of one sample, a panel a layer (``(H, L)`` bool, at most ``most`` neurons), under the input signal."""
    rows = len(layers) + (signal is not None)
    figure = Figure(figsize=(9, 0.9 + 1.5 * rows))
    axes = np.atleast_1d(figure.subplots(rows, 1, sharex=True))
    if signal is not None:
        axes[0].plot(signal, color=INK, lw=1)
        axes[0].set_ylabel("input")
        axes, first = axes[1:], axes[0]
        _bare(first)
    for i, (ax, spikes) in enumerate(zip(axes, layers, strict=True)):
        shown = spikes[:most]
        neuron, time = np.nonzero(shown)
        many = len(time) > _DRAWN  # a picture of them inside the drawing, which else has an element for each
        ax.plot(time, neuron, "|", color=SPIKE, ms=min(6.0, max(3.2, 120 / len(shown))), mew=1.1, rasterized=many)
        ax.set(ylabel=f"layer {i}", ylim=(-1, len(shown)), xlim=(-0.5, spikes.shape[1] - 0.5))
        ax.set_title(f"{spikes.mean():.1%} of neuron steps fire", fontsize=8, loc="right", color=INK)
        _bare(ax)
    axes[-1].set_xlabel("time step")
    figure.tight_layout()
    return figure


def rates_by_layer(rates: Sequence[ArrayLike]) -> Figure:
    """Mean firing rate of each layer, and the distribution over its neurons."""
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    left.bar(range(len(rates)), [float(np.mean(r)) for r in rates], color=SPIKE)
    left.set(xlabel="layer", ylabel="mean firing rate", xticks=range(len(rates)))
    for i, r in enumerate(rates):
        right.hist(np.asarray(r), bins=np.linspace(0, 1, 41), histtype="step", label=f"layer {i}")
    right.set(xlabel="firing rate of a neuron", ylabel="neurons", yscale="log")
    if len(rates) <= 8:
        legend_above(right)
    for ax in (left, right):
        _bare(ax)
    figure.tight_layout()
    return figure


def thresholds(v_th: Sequence[ArrayLike]) -> Figure:
    """Distribution of the learnt thresholds of each layer; 1 is where they start."""
    figure = Figure(figsize=(9, 2.8))
    ax = figure.subplots()
    ax.boxplot([np.asarray(v) for v in v_th], showfliers=True, flierprops={"markersize": 2})
    ax.axhline(1, color=SOFT, lw=1, ls=":")
    ax.set_xticks(range(1, len(v_th) + 1), [str(i) for i in range(len(v_th))])
    ax.set(xlabel="layer", ylabel="threshold")
    _bare(ax)
    figure.tight_layout()
    return figure


def energy_bars(forms: Mapping[str, Mapping[str, float]]) -> Figure:
    """Energy of each form by kind of part, in joules a sample; ``forms[name][kind]``."""
    figure = Figure(figsize=(9, 3.2))
    ax = figure.subplots()
    kinds = list(next(iter(forms.values())))
    where, width = np.arange(len(kinds)), 0.8 / len(forms)
    for i, (name, values) in enumerate(forms.items()):
        color = (SPIKE, SOFT, "#dd9a80", "#c9d4de")[i % 4]
        left = where + (i - (len(forms) - 1) / 2) * width
        ax.bar(left, [values[kind] * 1e6 for kind in kinds], width, label=name, color=color)
    ax.set_xticks(where, kinds)
    ax.set(ylabel="µJ a sample")
    legend_above(ax)
    _bare(ax)
    figure.tight_layout()
    return figure


def confusion(predictions: ArrayLike, targets: ArrayLike, classes: int) -> Figure:
    """Counts of predicted against true classes."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (np.asarray(targets), np.asarray(predictions)), 1)
    figure = Figure(figsize=(4.6, 4.2))
    ax = figure.subplots()
    ax.imshow(np.ma.masked_equal(counts, 0), cmap="Oranges", norm="symlog" if counts.max() > 50 else None)
    if classes <= 12:
        for (i, j), n in np.ndenumerate(counts):
            if n:
                ax.text(
                    j,
                    i,
                    str(n),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if n > counts.max() / 2 else "#222222",
                )
        ax.set(xticks=range(classes), yticks=range(classes))
    ax.set(xlabel="predicted", ylabel="true")
    figure.tight_layout()
    return figure


def curves(runs: Mapping[str, Mapping[str, NDArray]], names: Mapping[str, str]) -> Figure:
    """Training curves: ``runs[run][column]`` against the epoch, a panel for each of ``names`` (column -> title)."""
    figure = Figure(figsize=(3.6 * len(names), 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(names)))
    for ax, (column, title) in zip(axes, names.items(), strict=True):
        for color, (run, table) in zip((INK, SPIKE, "#3d8b5f", "#8a5aa8"), runs.items(), strict=False):
            kept = ~np.isnan(table[column]) if column in table else np.zeros(0, bool)
            if kept.any():
                ax.plot(table["epoch"][kept], table[column][kept], label=run, color=color, lw=1.4)
        ax.set(xlabel="epoch", title=title)
        ax.grid(alpha=0.25)
        _bare(ax)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=len(runs), frameon=False)
    return figure
