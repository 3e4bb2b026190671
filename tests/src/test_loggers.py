"""metrics.csv over interruptions: nothing is lost, nothing is there twice, torn lines are passed over."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from src.loggers import Rows

Run = Callable[..., dict]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


@pytest.mark.parametrize("tail", ["", "0.2,17", "1,2,3,4,5,6,7,8,9,10,11,12,13\n", "\0\0\0\0"])
def test_a_run_that_goes_on_keeps_its_rows(run_in: Run, tmp_path: Path, tail: str):
    often = ("train.test=false", "callbacks.timer=null", "trainer.log_every_n_steps=2", "scheduler=constant")
    run_in("whole", *often, "trainer.max_epochs=4")
    run_in("run", *often, "trainer.max_epochs=2")
    file = tmp_path / "run/logs/metrics.csv"
    with file.open("a") as handle:
        handle.write(tail)
    (tmp_path / "run/results.json").unlink()
    last = tmp_path / "run/checkpoints/last.ckpt"
    run_in("run", *often, "trainer.max_epochs=4", f"train.ckpt={last}")
    found, wanted = rows_of(file), rows_of(tmp_path / "whole/logs/metrics.csv")
    assert found == wanted


def test_rows_after_the_checkpoint_are_logged_again(run_in: Run, tmp_path: Path):
    often = ("train.test=false", "callbacks.timer=null", "trainer.log_every_n_steps=2", "scheduler=constant")
    run_in("run", *often, "trainer.max_epochs=3")
    file = tmp_path / "run/logs/metrics.csv"
    whole = rows_of(file)
    run_in("other", *often, "trainer.max_epochs=2")
    (tmp_path / "other/checkpoints/last.ckpt").replace(tmp_path / "run/checkpoints/last.ckpt")
    (tmp_path / "run/results.json").unlink()
    last = tmp_path / "run/checkpoints/last.ckpt"
    run_in("run", *often, "trainer.max_epochs=3", "train.validate_at_start=true", f"train.ckpt={last}")
    assert [row for row in rows_of(file) if row["step"] != "0"] == [row for row in whole if row["step"] != "0"]


def test_another_run_in_the_folder_starts_a_new_file(run_in: Run, tmp_path: Path):
    run_in("run")
    run_in("run", "train.overwrite=true", "trainer.max_epochs=1")
    rows = rows_of(tmp_path / "run/logs/metrics.csv")
    assert {row["epoch"] for row in rows if row["train/loss"]} == {"0"}


def test_rows_that_cannot_be_written_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "logs").write_text("a file where the folder belongs")
    rows = Rows(tmp_path / "logs/metrics.csv")
    for step in range(3):
        rows.waiting.append({"loss": 0.5, "step": step})
        rows.write()
    assert caplog.text.count("its rows are kept until they can be written") == 1
    (tmp_path / "logs").unlink()
    rows.waiting.append({"accuracy": 1.0, "step": 3})
    rows.write()
    assert [row["step"] for row in rows_of(rows.path)] == ["0", "1", "2", "3"]
    assert rows.waiting == []
