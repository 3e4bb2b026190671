"""Full disks, limits, read-only folders, names too long."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("a file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    with _mounted(tmp_path / "disk", "size=64k") as folder:
        yield folder


@pytest.fixture
def locked_folder(tmp_path: Path) -> Iterator[Path]:
    """A read-only file system."""
    with _mounted(tmp_path / "locked", "ro") as folder:
        yield folder


def test_training_on_a_full_disk(command, tiny, one_sentence, small_disk: Path):
    words = ("trainer.max_epochs=3", "logger.csv=false", f"hydra.run.dir={small_disk}/run")
    done = command("train.py", *tiny, *words)
    assert one_sentence(done), done.stderr
    assert "disk is full" in done.stderr
    assert [path.name for path in small_disk.rglob("*.part")] == []


@pytest.mark.parametrize("limit", [10, 40])
def test_training_where_no_file_may_grow(environment, tiny, one_sentence, tmp_path: Path, limit: int):
    root = Path(__file__).resolve().parents[2]
    line = ["bash", "-c", f'ulimit -f {limit}; exec "$0" "$@"', sys.executable]
    words = [*tiny, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(
        [*line, str(root / "train.py"), *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert one_sentence(done), done.stderr
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_folders_that_cannot_be_written(command, tiny, one_sentence, locked_folder: Path):
    for words in (
        (f"hydra.run.dir={locked_folder}/run",),
        ("tolerance.id=x", f"tolerance.logdir={locked_folder}"),
        (f"hydra.run.dir={'n' * 300}",),
        ("hydra.run.dir=/dev/null/run",),
    ):
        done = command("train.py", *tiny, "trainer.max_epochs=1", *words)
        assert one_sentence(done), (words, done.stderr)


def test_a_home_and_a_cache_that_cannot_be_written(environment, tiny, tmp_path: Path, locked_folder: Path):
    root = Path(__file__).resolve().parents[2]
    env = environment | {"HOME": str(locked_folder), "XDG_CACHE_HOME": str(locked_folder), "MPLCONFIGDIR": ""}
    env.pop("NUMBA_CACHE_DIR", None)
    line = [sys.executable, str(root / "train.py"), *tiny, "trainer.max_epochs=1", "hydra.run.dir=run"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # nothing of a run belongs there


@pytest.mark.parametrize("writer", ["generate", "fit"])
def test_the_neurons_commands_on_a_full_disk(command, one_sentence, small_disk: Path, tmp_path: Path, writer: str):
    if writer == "generate":
        done = command("generate.py", small_disk, "-N", "500", "-T", "200")
    else:
        assert command("generate.py", tmp_path / "data", "-N", "60", "-T", "32").returncode == 0
        (file,) = (tmp_path / "data").glob("*.pt")
        (small_disk / "filler").write_bytes(os.urandom(50_000))
        done = command("train.py", "--training", file, "--test", file, "--save", small_disk / "fit", "--epochs", "9")
    assert one_sentence(done), done.stderr
    assert [path.name for path in small_disk.rglob("*.part")] == []


def test_logs_on_a_full_disk_are_not_worth_the_run(command, tiny, small_disk: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/logs").symlink_to(small_disk)
    (small_disk / "filler").write_bytes(b"\1" * 60_000)
    words = [word for word in tiny if not word.startswith("logger.")]
    done = command("train.py", *words, "trainer.max_epochs=4", "trainer.log_every_n_steps=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert (tmp_path / "run/results.json").is_file()
    for what in ("its rows are kept until they can be written", "TensorBoard's log is left out from here on"):
        assert done.stderr.count(what) + done.stdout.count(what) == 1, done.stderr
