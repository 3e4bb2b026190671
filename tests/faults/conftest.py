"""The campaign: every test here is one fault, and the outcome is right only where nothing wrong passes in silence.

``make faults`` runs all of it and prints how many faults of each kind were tried. A new kind is a new file; its first
docstring line is its name in the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "experiment=spikingssm/digits",
    "model.d_model=8",
    "model.n_layers=1",
    "model.layer.d_state=4",
    "model.layer.neuron=sltt",
    "loader.batch_size=100",
    "logger.tensorboard=false",
    "callbacks.learning_rate_monitor=null",
)
_outcomes: dict[str, Counter[str]] = {}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of the commands that a test starts: one thread, data and caches in the test's own folder."""
    monkeypatch.setenv("DATA_PATH", str(tmp_path / "data"))
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return os.environ | own


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess]:
    """``command("train.py", ...)`` run to its end in the test's folder."""

    def run(script: str, *words: object, **options: object) -> subprocess.CompletedProcess:
        line = [sys.executable, str(ROOT / script), *map(str, words)]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, **options)

    return run


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Words that make a run of the digits small."""
    return TINY


@pytest.fixture
def one_sentence() -> Callable[[subprocess.CompletedProcess], bool]:
    """Whether a command ended with code 2 and a last line that says what is wrong, without a traceback."""

    def check(done: subprocess.CompletedProcess) -> bool:
        lines = done.stderr.strip().splitlines()
        said = bool(lines) and lines[-1].startswith("error: ")
        return done.returncode == 2 and "Traceback" not in done.stderr + done.stdout and said

    return check


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "/faults/" in f"/{report.nodeid}" and (report.when == "call" or report.skipped or report.failed):
        _outcomes.setdefault(report.nodeid.partition("::")[0], Counter())[report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.write_line(f"\n{'kind of fault':<44}{'tried':>8}{'right':>8}{'wrong':>8}{'skipped':>9}")
    total: Counter[str] = Counter()
    for file, found in sorted(_outcomes.items()):
        text = (ROOT / file).read_text(encoding="utf-8")
        total += found
        _line(terminalreporter, text.split('"""')[1].splitlines()[0].rstrip("."), found)
    _line(terminalreporter, "all", total)


def _line(terminalreporter: pytest.TerminalReporter, name: str, found: Counter[str]) -> None:
    right, wrong = found["passed"], found["failed"]
    terminalreporter.write_line(f"{name:<44}{right + wrong:>8}{right:>8}{wrong:>8}{found['skipped']:>9}")
