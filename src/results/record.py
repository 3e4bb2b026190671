"""``record.json``: what it takes to believe a run, kept while it runs and carried over interruptions.

===============  ====================================================================================================
command          as typed; ``config`` is what it composed to and ``config_hash`` its fingerprint
commit, changed  of the code; ``versions`` of the packages, ``hardware`` and ``load`` of the machine
seed             ``train.seed``
seconds          from the start of the fit to the last figure, all parts of a run that was interrupted;
                 ``cpu_seconds`` the same in processor time of the main process
parameters       ``total`` and ``trainable``
epochs           a row an epoch: ``epoch`` (from 0), ``step``, ``seconds``, ``train/...`` and ``val/...``
best             the row that is best by ``monitor``; ``test`` the figures of the test set, and of which weights
firing_rates     of the test, else of the last validation: the mean and ``layer_i``
interruptions    where the run went on from a checkpoint, and by which command
finished         false until the run came to its end
===============  ====================================================================================================

The history travels in every checkpoint, so the record of a run that was killed and went on is of the whole run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from sdn.files import write_text
from src.callbacks.parameters import count
from src.results import facts

FILE, FORMAT = "record.json", 1


class Record(Callback):
    """Write ``record.json`` into the current folder when a fit starts, after every validation and at the end."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.epochs: list[dict[str, Any]] = []
        self.interruptions: list[dict[str, Any]] = []
        self.tested: dict[str, Any] = {}
        self._before = {"seconds": 0.0, "cpu_seconds": 0.0, "loads": []}
        self._clock = (time.perf_counter(), time.process_time())
        self._loads: list[float] = []
        self._facts: dict[str, Any] = {}
        self._rates: dict[str, float] = {}
        self._stage = ""
        self._resumed = False
        self._ended: dict[str, Any] | None = None
        self._trainer: pl.Trainer | None = None

    # -- the life of a run ----------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stage, self._trainer = stage, trainer
        if not self._facts:
            numbers = count(pl_module)
            self._facts = {
                "format": FORMAT,
                "command": facts.command(),
                "config": self.config,
                "config_hash": facts.config_hash(self.config),
                **facts.commit(),
                "versions": facts.versions(),
                "hardware": facts.hardware(trainer.strategy.root_device.type, trainer.world_size),
                "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "seed": self.config["train"]["seed"],
                "parameters": {"total": numbers["total"], "trainable": numbers["trainable"]},
            }
            self._clock = (time.perf_counter(), time.process_time())
            self._note_load()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._resumed:
            self.interruptions.append(
                {
                    "went_on": self._facts["started"],
                    "epoch": trainer.current_epoch,
                    "step": trainer.global_step,
                    "command": self._facts["command"],
                }
            )
            self._resumed = False
        self._write(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note_training(trainer)
        if self.epochs:
            self._write(trainer)  # with the training figures of the epoch that has ended

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        figures = _figures(trainer, "val/")
        self._rates = _rates(figures, "val")
        if self._stage == "fit":
            self._row(trainer).update(_short(figures))
        elif self.config["train"]["mode"] == "validate":
            self.tested = {"weights": _weights(trainer, self.config), "figures": _short(figures)}
        self._note_load()
        self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = self._row(trainer)  # its training figures are logged after this hook

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note_training(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = _figures(trainer, "test/")
        self._rates = _rates(figures, "test") or self._rates
        self.tested = {"weights": _weights(trainer, self.config), "figures": _short(figures)}
        self._write(trainer)

    def finish(self) -> None:
        """The run came to its end."""
        if self._trainer is not None:
            self._note_training(self._trainer)
            self._write(self._trainer, finished=True)

    # -- over interruptions ---------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        return "record"

    def state_dict(self) -> dict[str, Any]:
        """The history so far, plain numbers and text."""
        if self._trainer is not None:
            self._note_training(self._trainer)
        seconds, cpu_seconds = self._seconds()
        return {
            "epochs": self.epochs,
            "interruptions": self.interruptions,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "loads": self._before["loads"] + self._loads,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the history in a checkpoint; a test of its weights leaves it alone."""
        if self._stage == "fit":
            self.epochs = [dict(row) for row in state_dict["epochs"]]
            self.interruptions = list(state_dict["interruptions"])
            self._before = {name: state_dict[name] for name in self._before}
            self._resumed = True

    # -- the file -------------------------------------------------------------------------------------------------

    def record(self, finished: bool = False) -> dict[str, Any]:
        """Everything, as written."""
        seconds, cpu_seconds = self._seconds()
        loads = self._before["loads"] + self._loads
        monitor, mode = self.config["train"]["monitor"], self.config["train"]["monitor_mode"]
        return {
            **self._facts,
            "finished": finished,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds, 1),
            "load": {"mean": round(sum(loads) / len(loads), 2), "most": max(loads)} if loads else None,
            "epochs": self.epochs,
            "monitor": monitor,
            "best": best(self.epochs, monitor, mode),
            "test": self.tested or None,
            "firing_rates": self._rates or None,
            "interruptions": self.interruptions,
        }

    def _write(self, trainer: pl.Trainer, finished: bool = False) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:
            write_text(FILE, json.dumps(self.record(finished), indent=1) + "\n")

    def _seconds(self) -> tuple[float, float]:
        wall, cpu = self._clock
        return (
            self._before["seconds"] + time.perf_counter() - wall,
            self._before["cpu_seconds"] + time.process_time() - cpu,
        )

    def _note_load(self) -> None:
        if (now := facts.load()) is not None:
            self._loads.append(now)

    def _row(self, trainer: pl.Trainer) -> dict[str, Any]:
        step = trainer.global_step
        if not self.epochs or self.epochs[-1]["step"] != step:
            self.epochs.append({"epoch": trainer.current_epoch, "step": step})
        self.epochs[-1]["seconds"] = round(self._seconds()[0], 1)
        return self.epochs[-1]

    def _note_training(self, trainer: pl.Trainer) -> None:
        if self._ended is not None:
            row, self._ended = self._ended, None
            row.update(_short(_figures(trainer, "train/")))


def best(epochs: list[dict[str, Any]], monitor: str, mode: str) -> dict[str, Any] | None:
    """The first row with the best ``monitor``; None where no row has it."""
    rows = [row for row in epochs if row.get(monitor) is not None]
    if not rows:
        return None
    return (min if mode == "min" else max)(rows, key=lambda row: row[monitor])


def _figures(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _short(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Without the rates of single layers, and to seven digits, which is what float32 holds; None for NaN, infinity."""
    kept = {name: value for name, value in figures.items() if "/layer_" not in name}
    return {name: float(f"{value:.7g}") if math.isfinite(value) else None for name, value in kept.items()}


def _rates(figures: Mapping[str, float], split: str) -> dict[str, float]:
    prefix = f"{split}/firing_rate"
    found = {name: value for name, value in figures.items() if name.startswith(prefix)}
    return {name.removeprefix(f"{prefix}/") if name != prefix else "mean": round(v, 6) for name, v in found.items()}


def _weights(trainer: pl.Trainer, config: Mapping[str, Any]) -> str:
    """The checkpoint that is judged: after a fit the trainer's, otherwise the one that was given."""
    given = trainer.ckpt_path if config["train"]["mode"] == "fit" else config["train"]["ckpt"]
    path = str(given or "")
    return path.rpartition("/")[2] or "as they were at the end"
