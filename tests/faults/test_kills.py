"""Processes killed at random moments, and runs side by side."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def start(words, folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    line = [sys.executable, str(ROOT / "train.py"), *map(str, words)]
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until_trained(process: subprocess.Popen, checkpoint: Path) -> None:
    """Wait for a run's first checkpoint."""
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_sigkills_and_the_weights_of_an_unbroken_run(environment, tiny, tmp_path: Path, kills: int):
    """``$TMPDIR`` on another file system, as on most clusters."""
    away = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    env = environment | {"TMPDIR": str(away)}
    epochs = 6 + 5 * kills
    words = [*tiny, f"trainer.max_epochs={epochs}", "callbacks.last.every_n_train_steps=3"]
    resumable = [*words, "tolerance.id=x", f"tolerance.logdir={tmp_path}/ids"]
    generator, done = random.Random(0), 0
    try:
        whole = start([*words, "hydra.run.dir=whole"], tmp_path, env)
        assert whole.wait() == 0, whole.stdout.read()
        for number in range(4 * kills):
            run = tmp_path / f"run{number}"
            process = start([*resumable, f"hydra.run.dir={run}"], tmp_path, env)
            if done == kills:
                assert process.wait() == 0, process.stdout.read()
                break
            until_trained(process, run / "checkpoints/last.ckpt")
            time.sleep(generator.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            done += process.wait() == -signal.SIGKILL
        one, two = (
            torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (tmp_path / "whole", run)
        )
        assert one["global_step"] == two["global_step"]
        assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in one["state_dict"])
        assert list(tmp_path.glob("run*/checkpoints/.*.part")) == []
        one, two = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "whole", run))
        for name in ("train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy", "steps"):
            assert one[name] == two[name], name
    finally:
        shutil.rmtree(away)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_run_that_is_asked_to_stop(environment, tiny, tmp_path: Path, number: int, status: int):
    process = start([*tiny, "trainer.max_epochs=3000", "hydra.run.dir=run"], tmp_path, environment)
    until_trained(process, tmp_path / "run/checkpoints/last.ckpt")
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == status, out
    assert f"go on with train.ckpt={tmp_path}/run/checkpoints/last.ckpt" in out
    assert "Traceback" not in out


def test_two_runs_in_one_folder(environment, tiny, tmp_path: Path):
    words = [*tiny, "trainer.max_epochs=3000", "hydra.run.dir=run"]
    first = start(words, tmp_path, environment)
    until_trained(first, tmp_path / "run/checkpoints/last.ckpt")
    second = start(words, tmp_path, environment)
    out, _ = second.communicate()
    first.send_signal(signal.SIGTERM)
    first.communicate()
    assert second.returncode == 2, out
    assert f"is in use by process {first.pid}" in out
