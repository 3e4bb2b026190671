"""Stop when the loss is no number any more, before a checkpoint is spoilt."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from sdn.errors import UserError


class NanGuard(Callback):
    """Look at the loss after every step on the CPU, elsewhere every ``every_n_steps`` (a look waits for the device);
    and before every checkpoint at the sums of the epoch and at all weights.

    Raises:
        UserError: NaN or infinity was found.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = pl_module.device.type == "cpu" or (batch_idx + 1) % self.every_n_steps == 0
        if due and not torch.isfinite(outputs["loss"]):
            self._stop(trainer, f"the training loss became {outputs['loss'].item():g}")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not pl_module.totals["train"].finite():
            self._stop(trainer, "the training loss became NaN or infinite")
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                self._stop(trainer, f"the weights {name} became NaN or infinite")

    def _stop(self, trainer: pl.Trainer, what: str) -> None:
        kept = [c._last_checkpoint_saved for c in trainer.checkpoint_callbacks if c._last_checkpoint_saved]
        raise UserError(
            f"{what} in epoch {trainer.current_epoch}, step {trainer.global_step}; try a lower optimizer.lr or set "
            f"trainer.gradient_clip_val=1.0" + (f" (the last good checkpoint is {kept[-1]})" if kept else "")
        )
