"""Every key of the trainer and every callback that is offered: one short run each, with a result that is checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.checkpoint import load_checkpoint

Run = Callable[..., dict]
SWA = "+callbacks.swa={swa_lrs: 0.01, swa_epoch_start: %s}"

# name -> (words, epochs, steps); batches an epoch are 12
RUNS: dict[str, tuple[list[str], int, int]] = {
    "ema": (["train.ema=0.9"], 2, 24),
    "ema later": (["+callbacks.ema={decay: 0.9, update_starting_at_step: 20}"], 2, 24),
    "swa": ([SWA % 2, "trainer.max_epochs=4"], 4, 48),
    "swa fraction": ([SWA % 0.5, "trainer.max_epochs=4", "scheduler=multistep", "scheduler.milestones=[1]"], 4, 48),
    "swa rare validation": ([SWA % 1, "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2"], 4, 48),
    "plateau rare": (["scheduler=plateau", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4"], 4, 48),
    "plateau of the training": (["scheduler=plateau", "train.monitor=train/loss", "train.monitor_mode=min"], 2, 24),
    "validation within": (["trainer.val_check_interval=0.5", "callbacks.last.every_n_train_steps=1"], 2, 24),
    "max_steps": (["trainer.max_steps=5"], 0, 5),
    "min_epochs": (["+trainer.min_epochs=2", "trainer.max_epochs=2"], 2, 24),
    "sanity": (["trainer.num_sanity_val_steps=2"], 2, 24),
    "reload": (["+trainer.reload_dataloaders_every_n_epochs=1"], 2, 24),
    "deterministic": (["trainer.deterministic=true"], 2, 24),
    "overfit": (["+trainer.overfit_batches=3"], 2, 6),
    "overfit fraction": (["+trainer.overfit_batches=0.25", "loader.eval_batch_size=40"], 2, 6),
    "limits": (["trainer.limit_train_batches=0.5", "trainer.limit_val_batches=1"], 2, 12),
    "sync_batchnorm": (["trainer.sync_batchnorm=true"], 2, 24),
    "accumulate": (["trainer.accumulate_grad_batches=5", "callbacks.last.every_n_train_steps=1"], 2, 6),
    "clip": (["trainer.gradient_clip_val=0.1"], 2, 24),
    "profiler": (["trainer.profiler=simple"], 2, 24),
    "early_stopping": (["callbacks=[base,checkpoint,early_stopping]"], 2, 24),
    "no last": (["callbacks.last=null"], 2, 24),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_test_after_the_fit_is_of_the_best_checkpoint(run_in: Run, tmp_path: Path, name: str):
    words, epochs, steps = RUNS[name]
    found = run_in("run", *words)
    assert found["steps"] == steps
    assert found["epochs"] in (epochs, epochs + (name == "max_steps"))
    best = tmp_path / "run/checkpoints/best.ckpt"
    if best.exists():  # not where the run ended before its first validation
        again = run_in("again", "train.mode=test", f"train.ckpt={best}")
        assert again["test/loss"] == pytest.approx(found["test/loss"], rel=1e-5)


def test_a_dry_run_writes_no_checkpoint(run_in: Run, tmp_path: Path):
    assert run_in("run", "trainer.fast_dev_run=true")["steps"] == 1
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_run_limited_by_time_learns(run_in: Run):
    limit = ("trainer.max_epochs=-1", "trainer.max_time=00:00:00:03")
    assert run_in("run", *limit, "scheduler=constant", "scheduler.warmup=2")["steps"] > 2


def test_a_run_that_validates_by_the_clock(run_in: Run):
    found = run_in("run", "trainer.val_check_interval=00:00:00:01", "callbacks.last.every_n_train_steps=1")
    assert found["steps"] == 24


def test_no_step_no_silence(run_in: Run, caplog):
    assert run_in("run", "trainer.max_steps=0")["steps"] == 0
    assert "not one step was trained" in caplog.text


def test_swa_is_the_mean_of_the_epochs_ends(run_in: Run, tmp_path: Path):
    """The weights that are saved are the average; the raw ones beside it are what training goes on with."""
    raw = []
    for epochs in (2, 3):
        run_in(f"e{epochs}", SWA % 1, f"trainer.max_epochs={epochs}", "scheduler=constant")
        raw.append(load_checkpoint(tmp_path / f"e{epochs}/checkpoints/last.ckpt"))
    name = "decoder.output.weight"
    states = [checkpoint["current_model_state"][name] for checkpoint in raw]
    averages = [checkpoint["state_dict"][name] for checkpoint in raw]
    torch.testing.assert_close(averages[0], states[0])  # the first epoch that counts
    torch.testing.assert_close(averages[1], (states[0] + states[1]) / 2)


def test_goes_on_exactly_within_swa(run_in: Run, tmp_path: Path):
    words = (SWA % 1, "trainer.max_epochs=4")
    run_in("whole", *words)
    run_in("first", SWA % 1, "trainer.max_epochs=3", "scheduler.num_training_steps=48", "train.test=false")
    whole, first = (load_checkpoint(tmp_path / f"{run}/checkpoints/last.ckpt") for run in ("whole", "first"))
    run_in("on", *words, "scheduler.num_training_steps=48", f"train.ckpt={tmp_path}/first/checkpoints/last.ckpt")
    on = load_checkpoint(tmp_path / "on/checkpoints/last.ckpt")
    assert first["global_step"] < on["global_step"] == whole["global_step"]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(whole[part][name], on[part][name]) for name in whole[part]), part


def test_the_line_of_an_epoch_without_validation_repeats_no_figures(run_in: Run, capsys: pytest.CaptureFixture):
    run_in("run", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4", "callbacks.progress.style=plain")
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match(r"epoch \d/4", line)]
    assert [" val " in line for line in lines] == [False, True, False, True]
