"""Which checkpoints are kept: the best by a monitored figure and the last, both complete enough to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from sdn.errors import UserError
from src.registry import suggestion

FOLDER = "checkpoints"


class Best(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the epoch with the best ``monitor``.

    A resumed run, though it writes into another folder, must still beat the best epoch before the interruption.
    """

    def __init__(self, monitor: str = "val/accuracy", mode: str = "max") -> None:
        if mode not in ("min", "max"):
            raise UserError(f"train.monitor_mode must be min or max, not {mode!r}")
        super().__init__(FOLDER, "best", monitor=monitor, mode=mode, enable_version_counter=False)

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


class Last(ModelCheckpoint):
    """``checkpoints/last.ckpt``: after every epoch, every ``every_n_train_steps`` steps, and on SIGTERM."""

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        super().__init__(FOLDER, "last", every_n_train_steps=every_n_train_steps, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        return "last"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: this run keeps a file of its own."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if not trainer.is_last_batch:  # the end of the epoch is saved with its validation done
            super().on_train_batch_end(trainer, *args, **kwargs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.fast_dev_run:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: a validation within an epoch is no place to go on from."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
