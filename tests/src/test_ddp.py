"""Two processes train like one with the batch of both."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SAME = (
    "model.dropout=0.0",
    "model.norm=layer",
    "trainer.max_epochs=3",
    "loader.eval_batch_size=49",
    "optimizer.lr=0.003",
)


def curve(run: Path, name: str) -> list[float]:
    rows = csv.DictReader((run / "logs/metrics.csv").open())
    return [float(row[name]) for row in rows if row[name]]


def test_two_processes_equal_one(run_in: Callable[..., dict], tmp_path: Path, tiny: tuple[str, ...]):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    two = [*tiny, *SAME, "loader.batch_size=50", "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=two"]
    command = [sys.executable, "-m", "train", *two]
    done = subprocess.run(command, cwd=tmp_path, env=env, timeout=900, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert "strides" not in done.stderr  # gradients that DDP would copy
    run_in("one", *SAME, "loader.batch_size=100")
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/firing_rate", "test/loss"):
        assert curve(tmp_path / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-3, abs=1e-5), name
    one, two = (torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("one", "two"))
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-3, atol=1e-4)
    assert len(two["processes"]) == 2
