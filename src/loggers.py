"""The logs of a run, which are never worth the run itself.

``metrics.csv`` outlives interruptions: a run that goes on in its folder keeps the rows before its checkpoint, drops
those after it, which it logs again, and passes over what a kill left torn. Where a log cannot be written, on a full
disk say, a warning says so once and the training goes on.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from torch import Tensor

from sdn.disk import sentence
from sdn.errors import UserError
from sdn.files import atomic_path

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Rows:
    """Rows of a CSV file with columns that may come later. Each row is on the disk, or none of it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns, rows, torn = _read(path)
        self._before = len(rows)
        self.waiting: list[Row] = []
        self._broken = False
        if torn:
            log.warning("%s: %d torn line(s), of a run that was killed, are left out", path, torn)
            self._written(lambda: self._rewrite(rows))

    def go_on_from(self, step: int) -> None:
        """Drop what the processes before this one logged at ``step`` and later, save the figures of a test at the end:
        the run comes there again. From step 0 it is another run."""
        self.write()
        columns, rows, _ = _read(self.path)
        before, own = rows[: self._before], rows[self._before :]
        kept = [row for row in before if step and (_step(row) < step or (_step(row) == step and _is_test(row)))]
        kept += [row for row in own if row not in kept]  # such as the number of parameters, once for all
        self._before = 0
        if len(kept) < len(rows):
            self.columns = columns if kept else []
            self._written(lambda: self._rewrite(kept))

    def write(self) -> None:
        """Write the rows that wait."""
        if not self.waiting:
            return
        new = sorted({name for row in self.waiting for name in row} - set(self.columns))
        if new or not self.path.is_file():
            before = _read(self.path)[1]
            self.columns = sorted({*self.columns, *new})
            done = self._written(lambda: self._rewrite([*before, *self.waiting]))
        else:
            done = self._written(self._append)
        if done:
            self.waiting = []

    def _append(self) -> None:
        text = _text(self.columns, self.waiting, header=False).encode()
        with self.path.open("ab") as file:
            size = file.tell()
            try:
                file.write(text)
                file.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, size)
                raise

    def _rewrite(self, rows: list[Row]) -> None:
        if not self.columns:
            self.path.unlink(missing_ok=True)
            return
        with atomic_path(self.path) as temporary:
            temporary.write_text(_text(self.columns, rows), encoding="utf-8", newline="")

    def _written(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except (OSError, UserError) as error:
            if not self._broken:
                log.warning(
                    "%s; the run goes on, and its rows are kept until they can be written", _why(error, self.path)
                )
            self._broken = True
            return False
        self._broken = False
        return True


def _read(path: Path) -> tuple[list[str], list[Row], int]:
    """Columns and whole rows of a file, and how many lines are torn."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [], [], 0
    whole, _, torn = text.rpartition("\n")
    lines = [line for line in whole.split("\n") if "\0" not in line and "\ufffd" not in line]
    lost = (whole.count("\n") + 1 if whole else 0) - len(lines) + bool(torn)
    reader = csv.DictReader(line.rstrip("\r") for line in lines)
    columns = list(reader.fieldnames or [])
    if "step" not in columns:
        return [], [], lost + len(lines)
    rows = list(reader)
    good = [row for row in rows if None not in row and None not in row.values() and _step(row) >= 0]
    return columns, good, lost + len(rows) - len(good)


def _text(columns: list[str], rows: list[Row], header: bool = True) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _step(row: Mapping[str, Any]) -> int:
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        return -1


def _is_test(row: Mapping[str, Any]) -> bool:
    return any(value not in ("", None) for name, value in row.items() if name.startswith("test/"))


def _why(error: Exception, path: Path) -> str:
    return sentence(error.errno, path) if isinstance(error, OSError) else str(error)


class _Experiment:
    """What Lightning's logger writes through."""

    def __init__(self, folder: str) -> None:
        self.rows = Rows(Path(folder).resolve() / "metrics.csv")
        self.metrics = self.rows.waiting

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self.rows.waiting.append({**values, "step": step})

    def log_hparams(self, params: Mapping[str, Any]) -> None:
        """The configuration is in ``.hydra`` and in every checkpoint."""

    def save(self) -> None:
        self.rows.write()


class CSVLog(CSVLogger):
    """``metrics.csv`` in ``folder``, by :class:`Rows`."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> _Experiment:
        if self._experiment is None:
            self._experiment = _Experiment(self.log_dir)
        return self._experiment


class GoOn(Callback):
    """Tells the logs where a run starts, before the first row of it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, CSVLog):
                    logger.experiment.rows.go_on_from(trainer.fit_loop.epoch_loop._batches_that_stepped)


def tensorboard(folder: str) -> Logger:
    """TensorBoard's log in ``folder/tensorboard``; once it cannot be written it is left out."""
    from pytorch_lightning.loggers import TensorBoardLogger

    class Careful(TensorBoardLogger):
        broken = False

        def _try(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
            if self.broken:
                return
            try:
                write(*args, **kwargs)
            except (OSError, ValueError) as error:  # a file that is closed is a ValueError
                self.broken = True
                why = _why(error, Path(self.log_dir).resolve())
                log.warning("%s; TensorBoard's log is left out from here on", why)

        def log_metrics(self, *args: Any, **kwargs: Any) -> None:
            self._try(super().log_metrics, *args, **kwargs)

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            self._try(super().log_hyperparams, *args, **kwargs)

        def save(self) -> None:
            self._try(super().save)

        def finalize(self, status: str) -> None:
            self._try(super().finalize, status)

    _quieten_writer()
    return Careful(folder, name="tensorboard", version="")


def _quieten_writer() -> None:
    """TensorBoard writes in a thread, whose end by a full disk is told by the next call; its traceback says no more."""
    before = threading.excepthook
    if getattr(before, "quiet", False):
        return

    def hook(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            before(args)

    hook.quiet = True
    threading.excepthook = hook
