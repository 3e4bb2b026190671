"""``record.json``: what a run leaves, and that a run which was broken off leaves the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

from src import config, registry
from src.results.facts import config_hash
from src.results.record import best

ROOT = Path(__file__).resolve().parents[3]


class Break(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("broken off")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.lookup
    for module in (registry, config):
        monkeypatch.setattr(module, "lookup", lambda kind, name: Break if name == "break" else real(kind, name))


def _record(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())


def test_a_run_leaves_what_it_takes_to_believe_it(run_in, tmp_path):
    results = run_in("run", "trainer.max_epochs=3")
    record = _record(tmp_path / "run")
    assert record["finished"]
    assert record["config"] == config.compose("trainer.max_epochs=3") | record["config"]
    assert record["config_hash"] == config_hash(record["config"])
    assert len(record["commit"]) == 40
    assert record["versions"]["torch"]
    assert record["hardware"]["cores"] >= 1
    assert record["parameters"]["total"] == results["parameters"]
    assert record["seed"] == 1111
    assert [(row["epoch"], row["step"]) for row in record["epochs"]] == [(0, 12), (1, 24), (2, 36)]
    last = record["epochs"][-1]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/firing_rate"):
        assert last[name] == pytest.approx(results[name], rel=1e-6), name
    assert record["best"]["val/accuracy"] == pytest.approx(results["best"], rel=1e-6)
    assert record["test"]["weights"] == "best.ckpt"
    assert record["test"]["figures"]["test/accuracy"] == pytest.approx(results["test/accuracy"], rel=1e-6)
    assert set(record["firing_rates"]) == {"mean", "layer_0"}
    assert record["seconds"] > 0
    assert record["interruptions"] == []


def test_a_test_alone_says_whose_weights_it_judged(run_in, tmp_path):
    run_in("run", "trainer.max_epochs=1")
    run_in("test", "train.mode=test", f"train.ckpt={tmp_path / 'run/checkpoints/best.ckpt'}")
    whole, alone = _record(tmp_path / "run"), _record(tmp_path / "test")
    assert alone["test"]["weights"] == "best.ckpt"
    assert alone["test"]["figures"]["test/loss"] == pytest.approx(whole["test"]["figures"]["test/loss"], rel=1e-5)
    assert alone["epochs"] == []
    assert alone["best"] is None


def test_the_history_survives_an_interruption(run_in, tmp_path):
    run_in("whole", "trainer.max_epochs=3")
    options = ("trainer.max_epochs=3", "tolerance.id=a", f"tolerance.logdir={tmp_path}/resume")
    with pytest.raises(RuntimeError, match="broken off"):
        run_in("one", *options, "callbacks.last.every_n_train_steps=17", "+callbacks.break.step=20")
    broken = _record(tmp_path / "one")
    assert not broken["finished"]
    assert [row["step"] for row in broken["epochs"]] == [12]
    assert "train/loss" in broken["epochs"][0]
    run_in("two", *options)
    whole, resumed = _record(tmp_path / "whole"), _record(tmp_path / "two")
    # the firing rate in training is of sampled batches: in the epoch that was broken off, of those after it went on
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "train/firing_rate")} for row in record["epochs"]]
        for record in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]
    assert [(stop["epoch"], stop["step"]) for stop in resumed["interruptions"]] == [(1, 17)]
    assert resumed["seconds"] > resumed["epochs"][0]["seconds"] == broken["epochs"][0]["seconds"]
    assert whole["config_hash"] == resumed["config_hash"]
    assert whole["best"]["epoch"] == resumed["best"]["epoch"]


def test_the_command_is_the_one_that_was_typed(tmp_path):
    words = ["experiment=spikingssm/digits", "trainer.limit_train_batches=2", "model.d_model=8", "trainer.max_epochs=1"]
    command = [sys.executable, "-m", "train", *words, "logger.tensorboard=false", f"hydra.run.dir={tmp_path}/run"]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert run.returncode == 0, run.stderr
    assert _record(tmp_path / "run")["command"] == "python -m train " + " ".join([*words, "logger.tensorboard=false"])


def test_best_is_the_first_of_equals_and_knows_nothing_of_rows_without_the_figure():
    rows = [{"a": 1.0}, {"m": None}, {"m": 2.0, "n": 0}, {"m": 2.0, "n": 1}, {"m": 3.0}]
    assert best(rows, "m", "min") == {"m": 2.0, "n": 0}
    assert best(rows, "m", "max") == {"m": 3.0}
    assert best(rows, "x", "max") is None


def test_a_hash_is_of_what_is_computed_not_of_where():
    made = {"train": {"seed": 1, "ckpt": None}, "tolerance": {"id": None}, "model": {"a": 1, "b": 2}}
    same = {"model": {"b": 2, "a": 1}, "train": {"ckpt": "x.ckpt", "seed": 1}, "tolerance": {"id": "run"}}
    assert config_hash(made) == config_hash(same)
    assert config_hash(made) != config_hash({**made, "train": {"seed": 2, "ckpt": None}})
