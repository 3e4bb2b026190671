"""Whole runs: what they write, that they go on exactly, and the switches of ``train``."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from sdn.errors import UserError
from src import config, registry
from src.checkpoint import load_checkpoint
from src.module import SequenceModule

Run = Callable[..., dict]
FIGURES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy", "val/firing_rate")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_run(a: Path, b: Path) -> None:
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (a, b))
    assert {name: first[name] for name in FIGURES} == {name: second[name] for name in FIGURES}
    for kept in ("best", "last"):
        ours, theirs = (weights(folder / f"checkpoints/{kept}.ckpt") for folder in (a, b))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_writes_figures_and_checkpoints(run_in: Run, tmp_path: Path, capsys: pytest.CaptureFixture):
    results = run_in("run", "trainer.max_epochs=3", "train.track_grad_norms=true", "trainer.log_every_n_steps=2")
    assert set(FIGURES) <= set(results)
    assert (results["epochs"], results["steps"]) == (3, 36)
    written = json.loads((tmp_path / "run/results.json").read_text())
    assert written == results
    out = capsys.readouterr().out
    assert "epoch 3/3" in out
    assert "val firing_rate" in out
    assert "test firing_rate" in out

    rows = list(csv.DictReader((tmp_path / "run/logs/metrics.csv").open()))
    assert len([row for row in rows if row["val/accuracy"]]) == 3
    for name in ("train/firing_rate/layer_0", "val/firing_rate/layer_0", "timer/step", "grad_norm/backbone.layers.0"):
        assert any(row[name] for row in rows), name
    assert [row["params/total"] for row in rows if row["params/total"]] == [str(results["parameters"])]
    rates = [float(row["lr-AdamW/main"]) for row in rows if row["lr-AdamW/main"]]
    assert max(rates) > rates[-1] < 1e-3  # the cosine reaches its end with the run

    best = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    module = SequenceModule.from_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert best["config"]["model"]["d_model"] == 8
    assert module(torch.zeros(2, 64, 1)).shape == (2, 10)


def test_tests_the_best_weights_not_the_last(run_in: Run, tmp_path: Path):
    fit = run_in("fit", "optimizer.lr=0.5", "trainer.max_epochs=3")
    best = tmp_path / "fit/checkpoints/best.ckpt"
    alone = run_in("test", "train.mode=test", f"train.ckpt={best}")
    again = run_in("val", "train.mode=validate", f"train.ckpt={best}")
    assert alone["test/loss"] == pytest.approx(fit["test/loss"], rel=1e-6)
    assert again["val/accuracy"] == pytest.approx(fit["best"])
    assert load_checkpoint(best)["epoch"] < 2 or fit["best"] == fit["val/accuracy"]


@pytest.mark.parametrize("ema", ["0", "0.9"])
def test_goes_on_exactly_from_the_middle_of_an_epoch(run_in: Run, tmp_path: Path, ema: str):
    run_in("whole", f"train.ema={ema}")
    with pytest.raises(InterruptionError):
        run_in("broken", f"train.ema={ema}", "callbacks.last.every_n_train_steps=17", "+callbacks.stop.step=20")
    kept = tmp_path / "broken/checkpoints/last.ckpt"
    assert load_checkpoint(kept)["global_step"] == 17  # the sixth of twelve steps of the second epoch
    run_in("resumed", f"train.ema={ema}", f"train.ckpt={kept}")
    if not (tmp_path / "resumed/checkpoints/best.ckpt").exists():  # the first epoch was the best
        (tmp_path / "broken/checkpoints/best.ckpt").rename(tmp_path / "resumed/checkpoints/best.ckpt")
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")


class InterruptionError(Exception):
    pass


class Stop(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step == self.step:
            raise InterruptionError


class Terminate(Stop):
    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Poison(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: object) -> None:
        if trainer.global_step == self.step:
            next(module.parameters()).data.fill_(float("nan"))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.lookup
    ours = {"stop": Stop, "terminate": Terminate, "poison": Poison}
    for module in (registry, config):
        monkeypatch.setattr(module, "lookup", lambda kind, name: ours.get(name) or real(kind, name))


def test_same_seed_same_run_other_seed_other_run(run_in: Run):
    a, b, c = run_in("a"), run_in("b"), run_in("c", "train.seed=7")
    assert a["train/loss"] == b["train/loss"] != c["train/loss"]


def test_pre_emption_by_id(run_in: Run, tmp_path: Path):
    run_in("whole")
    options = ("tolerance.id=job7", f"tolerance.logdir={tmp_path}/resume")
    with pytest.raises(InterruptionError):
        run_in("one", *options, "+callbacks.stop.step=20")
    assert (tmp_path / "resume/job7/hydra.txt").read_text() == f"{tmp_path / 'one'}\n"
    run_in("two", *options)
    assert json.loads((tmp_path / "two/results.json").read_text())["steps"] == 24
    whole, two = (json.loads((tmp_path / f / "results.json").read_text()) for f in ("whole", "two"))
    assert {name: whole[name] for name in FIGURES} == {name: two[name] for name in FIGURES}


def test_sigterm_keeps_the_step_just_done(run_in: Run, tmp_path: Path):
    run_in("whole")
    with pytest.raises(SystemExit) as stopped:
        run_in("broken", "+callbacks.terminate.step=15")
    assert stopped.value.code == 143
    kept = tmp_path / "broken/checkpoints/last.ckpt"
    assert load_checkpoint(kept)["global_step"] == 15
    run_in("resumed", f"train.ckpt={kept}")
    whole, resumed = (json.loads((tmp_path / f / "results.json").read_text()) for f in ("whole", "resumed"))
    assert {name: whole[name] for name in FIGURES} == {name: resumed[name] for name in FIGURES}


def test_wandb_cannot_break_a_run(run_in: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_in("run", "wandb.project=mine", "trainer.fast_dev_run=true")["steps"] == 1
    assert "wandb could not be started and is left out" in caplog.text


def test_pretrained_weights_and_a_frozen_backbone(run_in: Run, tmp_path: Path):
    run_in("first", "trainer.max_epochs=1")
    source = tmp_path / "first/checkpoints/last.ckpt"
    run_in(
        "second",
        "trainer.max_epochs=1",
        f"train.pretrained_model_path={source}",
        "train.pretrained_freeze_encoder=true",
        "train.ignore_pretrained_layers=[decoder]",
    )
    before, after = weights(source), weights(tmp_path / "second/checkpoints/last.ckpt")
    learnt = {
        name for name in before if before[name].is_floating_point() and not torch.equal(before[name], after[name])
    }
    assert learnt == {"decoder.output.weight", "decoder.output.bias"}

    with pytest.raises(UserError, match="do not fit this model"):
        run_in("third", f"train.pretrained_model_path={source}", "model.n_layers=2")
    with pytest.raises(UserError, match="other shapes"):
        run_in(
            "fourth",
            f"train.pretrained_model_path={source}",
            "model.d_model=6",
            "train.pretrained_model_strict_load=false",
        )


def test_early_stopping_accumulation_clipping_and_bf16(run_in: Run):
    results = run_in(
        "run",
        "callbacks=[base,checkpoint,early_stopping]",
        "callbacks.early_stopping.patience=1",
        "optimizer.lr=0.0",
        "trainer.max_epochs=9",
        "trainer.accumulate_grad_batches=5",
        "trainer.gradient_clip_val=1.0",
        "trainer.precision=bf16-mixed",
        "train.validate_at_start=true",
    )
    assert (results["epochs"], results["steps"]) == (2, 6)


def test_nan_stops_with_a_sentence_and_keeps_the_last_good_checkpoint(run_in: Run, tmp_path: Path):
    with pytest.raises(UserError, match=r"became (nan|inf|NaN).*epoch 1, step 1\d.*lower optimizer.lr"):
        run_in("run", "+callbacks.poison.step=15")
    kept = weights(tmp_path / "run/checkpoints/last.ckpt")
    assert all(torch.isfinite(value).all() for value in kept.values())


@pytest.mark.parametrize("what", ["missing", "foreign", "cut short"])
def test_a_checkpoint_that_cannot_be_used(run_in: Run, tmp_path: Path, what: str):
    path = tmp_path / "x.ckpt"
    if what == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif what == "cut short":
        path.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match=r"does not exist|not written by this training loop|cannot|no checkpoint"):
        run_in("run", f"train.ckpt={path}")


def test_a_monitor_that_is_never_logged(run_in: Run):
    with pytest.raises(UserError, match=r"never logged; did you mean 'val/accuracy'"):
        run_in("run", "train.monitor=val/acuracy")


def test_evaluation_alone_needs_weights(run_in: Run):
    with pytest.raises(UserError, match=r"train\.ckpt"):
        run_in("run", "train.mode=test")
