"""Pre-emption: runs of one id remember their folders, so that the next one goes on where the last one stopped."""

from __future__ import annotations

from pathlib import Path

from sdn.files import write_text
from src.paths import resolve

RUNS = "hydra.txt"


def last_checkpoint(run_id: str, logdir: str) -> Path | None:
    """``checkpoints/last.ckpt`` of the latest run of ``run_id`` that has one."""
    record = resolve(logdir) / run_id / RUNS
    runs = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    found = (Path(run) / "checkpoints" / "last.ckpt" for run in reversed(runs))
    return next((path for path in found if path.is_file()), None)


def remember(run_id: str, logdir: str, run: Path) -> None:
    """Append ``run`` to the folders of ``run_id``."""
    record = resolve(logdir) / run_id / RUNS
    runs = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    if str(run) not in runs:
        write_text(record, "\n".join([*runs, str(run)]) + "\n")
