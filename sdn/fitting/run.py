"""A run of the SDN fit and its folder.

======================  ===============================================================================
``exp.log``             everything that was reported
``metrics.csv``         one row an epoch
``last_checkpoint.pth`` after every epoch: network, optimizer, options, data checksums; ``--resume`` reads it
``previous_checkpoint.pth`` the one before, read where the last one is damaged; gone once the run is finished
``best_checkpoint.pth`` the same without the optimizer, from the epoch with the lowest validation loss
``sdn.safetensors``     the best network, reduced (at the end refined, if asked): the file that neurons load
``report.json``         test figures of that file, baselines, options
``curves.png``          loss and wrong spikes by epoch
``prediction.png``      true and predicted potentials and spikes of a few test sequences
======================  ===============================================================================
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError
from ..files import keep_before, write_text
from ..network import ReducedSDN
from ..weights import save_reduced
from .checkpoint import load_checkpoint, load_sdn, save_checkpoint
from .data import NeuronData
from .fit import Fit, FitConfig, figures
from .metrics import evaluate, no_memory, truncated
from .reduce import reduce
from .sharpen import count_starts, sharpen

LAST, BEST, REDUCED, REPORT = "last_checkpoint.pth", "best_checkpoint.pth", "sdn.safetensors", "report.json"
PREVIOUS = "previous_checkpoint.pth"
_SHARE, _SAY_EVERY = "{l_bar}{bar}| {elapsed} < {remaining}", 100


def run(
    config: FitConfig,
    training: NeuronData,
    test: NeuronData,
    directory: Path,
    device: str = "cpu",
    state: Mapping[str, Any] | None = None,
) -> None:
    """Fit, from the start or from the last checkpoint's content ``state``, and leave all files in ``directory``."""
    fit = Fit(config, training, device)
    facts = {"config": asdict(config), "tau": training.tau, "data": identity(training, test)}
    if state:
        fit.load_state(state)
        facts["baselines"] = state["baselines"]
        logger.info("resuming {} after epoch {} of {}", directory, fit.epoch, config.epochs)
    else:
        logger.info("fitting to {} sequences of {}: {}", len(fit.training), training.path, asdict(config))
        facts["baselines"] = _baselines(fit, training.tau)
    while fit.epoch < config.epochs:
        row = fit.run_epoch(_bar(f"epoch {fit.epoch + 1}/{config.epochs}"))
        # The best goes first: after a kill between the two the epoch is repeated and writes the same best again.
        if row["val_loss"] <= min(past["val_loss"] for past in fit.history):
            save_checkpoint(directory / BEST, facts | fit.state())
            _save_best(directory)
        keep_before(directory / LAST, directory / PREVIOUS)
        save_checkpoint(directory / LAST, facts | fit.state() | {"optimizer": fit.optimizer.state_dict()})
        write_text(directory / "metrics.csv", _table(fit.history))
        left = (config.epochs - fit.epoch) * row["seconds"]
        logger.info("epoch {}/{}: {}, {:.0f} s left", fit.epoch, config.epochs, _sentence(row, "val_"), left)
    _finish(fit, test, directory, facts)


def _bar(name: str) -> Callable[[Sequence[Tensor]], Iterable[Tensor]]:
    """A progress bar over the batches of an epoch, where somebody is looking."""
    return partial(tqdm, desc=name, unit="batch", leave=False, disable=None)


def finished(directory: Path) -> bool:
    """Whether the run in ``directory`` has written its last file."""
    return (directory / REPORT).is_file()


def identity(training: NeuronData, test: NeuronData) -> dict[str, Any]:
    """What must stay the same for a run to go on: header and checksums of both files."""
    return {role: [data.header, data.fingerprint()] for role, data in (("training", training), ("test", test))}


def resume_state(
    directory: Path, given: Mapping[str, Any], training: NeuronData, test: NeuronData
) -> tuple[FitConfig, dict[str, Any]]:
    """Options and last checkpoint of the run in ``directory``, if it may go on with these data.

    Args:
        given: options the user stated again.

    Raises:
        UserError: no run there, other data, or a stated option that differs from the run's.
    """
    state = _newest(directory)
    try:
        before, data = FitConfig(**state["config"]), state["data"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory / LAST} is damaged: it does not say how the run was started") from error
    for name, value in given.items():
        if getattr(before, name) != value:
            raise UserError(
                f"{directory} was started with {name} {getattr(before, name)}, not {value}; "
                f"leave --{name} out, or start another run with --save"
            )
    for role, now in identity(training, test).items():
        if data.get(role) != now:
            raise UserError(
                f"{directory} was started with other {role} data; name those again, or start another run with --save"
            )
    return before, state


def _newest(directory: Path) -> dict[str, Any]:
    """The last checkpoint, or the one before where the last is damaged: its epoch is then repeated."""
    there = [path for path in (directory / LAST, directory / PREVIOUS) if path.is_file()]
    if not there:
        raise UserError(f"{directory} holds no run that can be resumed; start one with --save {directory}")
    try:
        return load_checkpoint(there[0])
    except UserError as error:
        for path in there[1:]:
            try:
                state = load_checkpoint(path)
            except UserError:
                continue
            logger.warning("{}; going on from {}, one epoch before", error, path)
            (directory / LAST).replace(directory / f"{LAST}.torn")  # it must not take the place of the whole one
            return state
        raise


def _save_best(directory: Path) -> None:
    """The reduced network of the best epoch so far: an interrupted fit leaves one too."""
    sdn, tau, best = load_sdn(directory / BEST)
    meta = {"data": best["data"]["training"][0], "config": best["config"], "epoch": best["epoch"]}
    save_reduced(reduce(sdn, tau, meta), directory / REDUCED)


def _baselines(fit: Fit, tau: float) -> dict[str, dict[str, float]]:
    """Figures on the validation sequences of predictors that need no fit."""
    current, mem = fit.batch(fit.validation)
    found = {}
    for name, predict in (
        ("no memory", no_memory),
        ("exact recurrence over the last 4 inputs", lambda x: truncated(x, tau, 4)),
    ):
        found[name] = figures(evaluate(predict, current, mem))
        logger.info("baseline {}: {}", name, _sentence(found[name]))
    return found


def _finish(fit: Fit, test: NeuronData, directory: Path, facts: dict[str, Any]) -> None:
    from . import plots  # matplotlib takes a second to load: not before it is needed

    sdn, tau, best = load_sdn(directory / BEST)
    meta = {"data": best["data"]["training"][0], "config": best["config"], "epoch": best["epoch"]}
    reduced = reduce(sdn, tau, meta)
    if fit.config.refine:
        reduced = _refine(fit, reduced)
    predict = _on_device(reduced, fit.device)
    started = time.monotonic()
    score = figures(evaluate(predict, test.input, test.mem, test.spike))
    logger.info(
        "test ({} sequences, best epoch {}{}): {}, {:.1f} s",
        len(test),
        best["epoch"],
        f", {fit.config.refine} steps of refinement" if fit.config.refine else "",
        _sentence(score),
        time.monotonic() - started,
    )
    reduced.meta["test"] = score
    save_reduced(reduced, directory / REDUCED)
    plots.curves(fit.history, facts["baselines"], directory / "curves.png", score["wrong_over_true"])
    plots.prediction(predict, test, directory / "prediction.png")
    report = {"test": score, "best_epoch": best["epoch"], "baselines": facts["baselines"]}
    report |= {"tau": tau, "config": facts["config"], "data": test.header, "n_weights": reduced.n_weights()}
    write_text(directory / REPORT, json.dumps(report, indent=2) + "\n")
    (directory / PREVIOUS).unlink(missing_ok=True)  # nothing is left to go on with
    logger.info("{} holds the reduced network of {} weights", directory / REDUCED, reduced.n_weights())


def _refine(fit: Fit, reduced: ReducedSDN) -> ReducedSDN:
    """The network after ``--refine`` steps, with a progress bar where somebody is looking and lines in the log."""
    steps = fit.config.refine

    def drawn(part: Tensor) -> tuple[Tensor, Tensor]:
        current, mem = fit.batch(part)
        return current.cpu(), mem.cpu()

    done: dict[str, int] = {}
    starts = count_starts(reduced)
    with tqdm(desc="refinement", total=1.0, bar_format=_SHARE, leave=False, disable=None) as bar:

        def progress(start: str, step: int, error: float) -> None:
            done[start] = step
            bar.n = sum(done.values()) / (steps * starts)
            bar.refresh()
            if step % _SAY_EVERY == 0 or step == steps:
                logger.info(
                    "refinement of the {} network, step {}/{}: held-out error {:.3g}", start, step, steps, error
                )

        sdn, errors = sharpen(reduced, drawn(fit.training), drawn(fit.validation), steps, fit.config.seed, progress)
    ends = ", ".join(f"{name} {error:.3g}" for name, error in errors.items())
    logger.info("refined from all starts, MAE on the validation sequences: {}", ends)
    return sdn


def _on_device(sdn: ReducedSDN, device: str) -> Callable[[Tensor], Tensor]:
    sdn = sdn.to(device)
    with torch.no_grad():
        return lambda current: sdn(current.to(device)).cpu()


def _sentence(row: Mapping[str, float], prefix: str = "") -> str:
    loss = f"loss train {row['train_loss']:.3g} validation {row['val_loss']:.3g}, " if "val_loss" in row else ""
    return loss + (
        f"MAE {row[prefix + 'mae_mean']:.3g} (std {row[prefix + 'mae_std']:.3g}, max {row[prefix + 'mae_max']:.3g}), "
        f"spike accuracy {row[prefix + 'spike_accuracy']:.5f}, "
        f"wrong/true spikes {row[prefix + 'wrong_over_true']:.4f}"
    )


def _table(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
