"""Which checkpoints are kept: the best by a monitored figure and the last two, all complete enough to go on from."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from sdn.errors import UserError
from sdn.files import keep_before
from src.checkpoint import PREVIOUS
from src.registry import suggestion

FOLDER = "checkpoints"
_ASK = 10
"""Batches between two questions of several processes whether it is time to save."""


class Best(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the epoch with the best ``monitor``; with ``save_top_k`` k also the k best, or all
    for -1, as ``best-EPOCH-STEP.ckpt``, the best of which ``best.ckpt`` is a second name.

    A resumed run, though it writes into another folder, must still beat the best epoch before the interruption.
    """

    def __init__(self, monitor: str = "val/accuracy", mode: str = "max", save_top_k: int = 1) -> None:
        if mode not in ("min", "max"):
            raise UserError(f"train.monitor_mode must be min or max, not {mode!r}")
        if save_top_k == 0 or save_top_k < -1:
            raise UserError(
                f"callbacks.best.save_top_k is a number of checkpoints from 1 on, or -1 for all, not {save_top_k}; "
                "callbacks.best=null keeps none"
            )
        name = "best" if save_top_k == 1 else "best-{epoch}-{step}"
        super().__init__(
            FOLDER,
            name,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        return "best"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if Path(state_dict["best_model_path"]).is_file() and state_dict["monitor"] == self.monitor:
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})

    def _save_topk_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        validated = trainer.fit_loop.epoch_loop.val_loop._has_run
        if self.monitor not in monitor_candidates and validated:
            figures = [name for name in monitor_candidates if "/" in name]
            raise UserError(f"train.monitor={self.monitor!r} is never logged{suggestion(self.monitor, figures)}")
        if self.monitor in monitor_candidates:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
            if self.save_top_k != 1 and trainer.is_global_zero:
                self._name_the_best()

    def _name_the_best(self) -> None:
        """``best.ckpt`` as a second name of the best file, or a copy where there are no links."""
        best, name = Path(self.best_model_path), Path(self.dirpath, "best.ckpt")
        if not best.is_file() or (name.is_file() and os.path.samefile(best, name)):
            return
        name.unlink(missing_ok=True)
        try:
            os.link(best, name)
        except OSError:
            from sdn.files import atomic_path

            with atomic_path(name) as temporary:
                temporary.write_bytes(best.read_bytes())


class Last(ModelCheckpoint):
    """``checkpoints/last.ckpt``, and ``previous.ckpt``, the one before.

    Saved after every epoch, within epochs every ``every_n_minutes`` and every ``every_n_train_steps`` steps, and when
    the run is asked to stop. Within an epoch the next moment is waited for from which a run can go on exactly
    (:func:`can_save`).

    Raises:
        UserError: an interval that is none.
    """

    def __init__(self, every_n_train_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
        super().__init__(FOLDER, "last", enable_version_counter=False)
        for name, value in (("every_n_train_steps", every_n_train_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"callbacks.last.{name} must be above 0, or null for never, not {value}")
        self.steps, self.minutes = every_n_train_steps, every_n_minutes
        self._saved_at, self._due = time.monotonic(), False

    @property
    def state_key(self) -> str:
        return "last"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: this run keeps a file of its own."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        fresh = trainer.global_step != self._last_global_step_saved
        if self.steps and trainer.global_step % self.steps == 0 and fresh:
            self._due = True
        if self.minutes and (trainer.world_size == 1 or batch_idx % _ASK == 0):
            late = time.monotonic() - self._saved_at >= 60 * self.minutes
            self._due |= late if trainer.world_size == 1 else trainer.strategy.broadcast(late)
        if self._due and can_save(trainer, batch_idx):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.fast_dev_run:  # also if its last step was saved already: now the epoch is done
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: a validation within an epoch is no place to go on from."""

    def save(self, trainer: pl.Trainer) -> None:
        """Save now, unless this step is saved already or nothing is to be saved in this run."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        if trainer.is_global_zero:
            keep_before(Path(filepath), Path(filepath).with_name(PREVIOUS))
        super()._save_checkpoint(trainer, filepath)
        self._saved_at, self._due = time.monotonic(), False


def can_save(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a run that is saved after this batch goes on exactly: no gradients wait to be used, and no validation
    or end of the epoch follows at once."""
    together = trainer.accumulate_grad_batches
    if trainer.is_last_batch or (batch_idx + 1) % together:
        return False
    interval = trainer.val_check_batch
    if not trainer.enable_validation or interval is None or interval == math.inf or interval <= together:
        return True  # None: validation goes by the clock, which no run goes on with
    loop = trainer.fit_loop.epoch_loop
    done = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return (done + 1) % int(interval) != 0
