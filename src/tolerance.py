"""Pre-emption: runs of one id remember their folders, so that the next one goes on where the last one stopped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from sdn.errors import UserError
from sdn.files import remove_parts, write_text
from sdn.lock import owned
from src.checkpoint import newest_whole
from src.paths import resolve

RUNS = "hydra.txt"
log = logging.getLogger(__name__)


def own_id(run_id: str) -> str:
    """``run_id``, and in a sweep ``run_id-NUMBER``: every job of a sweep is a run of its own."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return run_id
    return f"{run_id}-{HydraConfig.get().job.num}"


@contextlib.contextmanager
def running(run_id: str, logdir: str) -> Iterator[None]:
    """No other process runs ``run_id`` while the block does.

    Raises:
        UserError: one does.
    """
    folder = resolve(logdir) / run_id
    try:
        owner = owned(folder)
        owner.__enter__()
    except UserError as error:
        raise UserError(f"tolerance.id={run_id}: {error}") from error
    with contextlib.ExitStack() as stack:
        stack.push(owner)
        yield


def last_checkpoint(run_id: str, logdir: str) -> Path | None:
    """The newest whole checkpoint of the runs of ``run_id``; torn ones are passed over with a word.

    Raises:
        UserError: there are checkpoints, and all are torn.
    """
    runs = [Path(run) / "checkpoints" for run in reversed(_runs(run_id, logdir))]
    for folder in runs:
        remove_parts(folder)
    found, torn = newest_whole(runs)
    for path in torn:
        log.warning("%s is torn and passed over", path)
    if torn and found is None:
        names = ", ".join(map(str, torn))
        raise UserError(f"every checkpoint of tolerance.id={run_id} is torn ({names}); remove them to start anew")
    return found


def remember(run_id: str, logdir: str, run: Path) -> None:
    """Append ``run`` to the folders of ``run_id``; one that is there already becomes the latest."""
    runs = [known for known in _runs(run_id, logdir) if known != str(run)]
    write_text(resolve(logdir) / run_id / RUNS, "\n".join([*runs, str(run)]) + "\n")


def _runs(run_id: str, logdir: str) -> list[str]:
    record = resolve(logdir) / run_id / RUNS
    return record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
