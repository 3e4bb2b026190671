"""The page of the demo: data, fitted neuron, training, spikes, and the surrogate beside the exact neuron."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sdn.fitting.data import load
from src.evaluation.report import figures
from src.evaluation.report.page import Section, Table, data_uri, drawing, write_page


def demo_page(
    out: Path, runs: Mapping[str, Any], commands: Mapping[str, str], seconds: Mapping[str, float], total: float
) -> Path:
    """Write ``out/report.html``.

    Args:
        runs: by neuron, "sdn" and "sltt": ``folder``, ``activity``, ``result``, ``module`` and ``training``.
        commands, seconds: what each step was and took.
    """
    sdn, exact = runs["sdn"], runs["sltt"]
    accuracy = {name: run["result"]["figures"]["accuracy"] for name, run in runs.items()}
    facts = [
        (f"{accuracy['sdn']:.2%}", "test accuracy, trained with the SDN"),
        (f"{accuracy['sltt']:.2%}", "test accuracy, trained with the exact neuron"),
        (f"{sdn['result']['firing_rate']:.1%}", "of neuron steps fire"),
        (f"{total / 60:.1f} min", "from nothing to this page"),
    ]
    lead = (
        "A spiking state-space model, start to finish: neurons were simulated, a network of 153 weights learnt to "
        "predict their membrane potential for all time steps at once, and with it a SpikingSSM learnt to read "
        "handwritten digits pixel by pixel. The same model was then trained with the exact neuron."
    )
    sections = [
        _data(commands, out),
        _fit(commands, out / "sdn"),
        _training(commands, runs),
        _spikes(sdn, exact),
        _comparison(runs),
        Section(
            "Time",
            table=Table(["step", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()]),
            note="Training includes starting Python and importing torch.",
        ),
    ]
    path = out / "report.html"
    write_page(path, "SpikingSSM: the demo", lead, facts, sections)
    return path


def _data(commands: Mapping[str, str], out: Path) -> Section:
    training = load(next((out / "dataset").glob("training-*.pt")))
    shown = slice(0, 80)
    figure = Figure(figsize=(9, 3.4))
    top, bottom = figure.subplots(2, 1, sharex=True)
    current, mem, spike = (t[0, shown].float().numpy() for t in (training.input, training.mem, training.spike))
    top.plot(current, color=figures.INK, lw=1, label="input current")
    top.axhline(1, color=figures.SOFT, lw=1, ls=":")
    top.vlines(np.nonzero(spike)[0], 1, 1.6, color=figures.SPIKE, lw=1.2, label="spikes")
    bottom.plot(mem, color=figures.INK, lw=1, drawstyle="steps-post", label="decayed potential, the SDN's target")
    for ax in (top, bottom):
        figures.legend_above(ax)
    figure.tight_layout()
    rate = float(training.spike.float().mean())
    text = (
        f"{len(training.input):,} sequences of {training.input.shape[1]} steps; {rate:.1%} of the steps fire. "
        "The neuron leaks, integrates its input, fires at threshold 1 and is reset to 0."
    )
    return Section(
        "1. Neurons are simulated",
        text,
        commands["simulate"],
        pictures=[(drawing(figure), "The first steps of one neuron.")],
    )


def _fit(commands: Mapping[str, str], folder: Path) -> Section:
    pictures = [
        (data_uri(folder / "curves.png"), "The fit."),
        (data_uri(folder / "prediction.png"), "Predicted and true potential and spikes on test data."),
    ]
    return Section(
        "2. An SDN is fitted to them and reduced",
        "A causal network looks at the last eight inputs and predicts the membrane potential. After the fit its "
        "encoder and batch norms are multiplied out, and second-order steps sharpen the reset.",
        commands["fit the SDN"],
        _fit_table(folder),
        pictures,
    )


def _fit_table(folder: Path) -> Table:
    report = json.loads((folder / "report.json").read_text())
    figures_of = {f"the SDN, {report['n_weights']} weights": report["test"], **report["baselines"]}
    rows = [
        [name, f"{score['wrong_over_true']:.4f}", f"{score['spike_accuracy']:.5f}", f"{score['mae_mean']:.4f}"]
        for name, score in figures_of.items()
    ]
    return Table(["", "wrong / true spikes", "spike accuracy", "mean error of the potential"], rows)


def _training(commands: Mapping[str, str], runs: Mapping[str, Any]) -> Section:
    tables = {f"{name}": epochs(run["folder"] / "logs" / "metrics.csv") for name, run in runs.items()}
    picture = figures.curves(
        tables,
        {"train/loss": "training loss", "val/accuracy": "validation accuracy", "val/firing_rate": "firing rate"},
    )
    text = "Two layers of 64 channels read the 64 pixels of a digit one after another."
    return Section(
        "3. A SpikingSSM learns with it",
        text,
        commands["train with the SDN"],
        pictures=[(drawing(picture), "Training with the SDN and with the exact neuron.")],
    )


def epochs(path: Path) -> dict[str, NDArray]:
    """The columns of a run's ``metrics.csv`` that are logged once an epoch, merged to one row an epoch."""
    table = pd.read_csv(path)
    names = [name for name in table.columns if name.startswith(("train/", "val/"))]
    merged = table.dropna(subset=["epoch"]).groupby("epoch")[names].first()
    return {"epoch": merged.index.to_numpy(float) + 1, **{name: merged[name].to_numpy(float) for name in names}}


def _spikes(sdn: Mapping[str, Any], exact: Mapping[str, Any]) -> Section:
    activity = sdn["activity"]
    classes = int(activity.targets.max()) + 1
    rows = [
        [f"layer {i}", f"{a['firing_rate']:.2%}", f"{b['firing_rate']:.2%}", f"{a['dead']} of {a['neurons']}"]
        for i, (a, b) in enumerate(zip(sdn["result"]["layers"], exact["result"]["layers"], strict=True))
    ]
    raster = figures.raster([s.numpy() for s in activity.raster], activity.sample[:, 0].numpy())
    confusion = figures.confusion(activity.predictions.cpu(), activity.targets.cpu(), classes)
    return Section(
        "4. What it says, and how often it fires",
        table=Table(["", "firing rate, SDN", "firing rate, exact", "dead neurons"], rows),
        pictures=[
            (
                drawing(raster),
                f"One test digit, {activity.reading.words(None)}: its pixels, and the spikes of each layer meanwhile.",
            ),
            (drawing(confusion), "Test set, predicted against true digits."),
        ],
    )


def _comparison(runs: Mapping[str, Any]) -> Section:
    rows = []
    for name, run in runs.items():
        result, surrogate = run["result"], run["result"]["surrogate"]
        rows.append(
            [
                {"sdn": "trained with the SDN", "sltt": "trained with the exact neuron"}[name],
                f"{result['figures']['accuracy']:.2%}",
                f"{surrogate['figures']['accuracy']:.2%}",
                str(surrogate["changed_predictions"]),
                ", ".join(f"{la['wrong_over_true']:.4f}" for la in surrogate["layers"]),
                f"{result['firing_rate']:.2%}",
                f"{run['training']['seconds']:.0f} s",
            ]
        )
    head = [
        "",
        "accuracy",
        "with the other neuron",
        "predictions changed",
        "wrong / true spikes by layer",
        "firing rate",
        "training",
    ]
    return Section(
        "5. Surrogate and exact neuron side by side",
        "Each trained network was run on the test set with both neurons. Wrong spikes are counted on the currents that "
        "really arrive at each layer, where an SDN fitted to white noise errs more than on its own test data.",
        table=Table(head, rows),
        note="At inference the exact recurrence costs two operations a step; the SDN is for training only, if at all.",
    )
