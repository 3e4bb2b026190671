"""Where the time goes."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Timer(Callback):
    """Log ``timer/epoch`` and ``timer/validation`` in seconds and ``timer/step``, the epoch's mean without validation.

    Clocks are read on the host; steps are not synchronised with a device, so only their mean means something there.
    """

    def __init__(self) -> None:
        self._epoch = self._validation = 0.0
        self._steps = 0
        self._within = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch, self._steps, self._within = time.perf_counter(), 0, 0.0

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._steps += 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._within += time.perf_counter() - self._validation

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        whole = time.perf_counter() - self._epoch
        pl_module.log_dict(
            {
                "timer/epoch": whole,
                "timer/validation": self._within,
                "timer/step": (whole - self._within) / max(1, self._steps),
            }
        )
