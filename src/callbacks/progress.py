"""Progress: a rich bar on a terminal, one plain line an epoch in a file or a pipe."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar

from sdn.errors import UserError

STYLES = ("auto", "rich", "plain", "none")


def progress(style: str = "auto") -> Callback | None:
    """The progress callback of a style; "auto" is "rich" where there is a terminal and the rich package.

    Raises:
        UserError: unknown style.
    """
    if style not in STYLES:
        raise UserError(f"callbacks.progress.style must be one of {', '.join(STYLES)}, not {style!r}")
    if style == "auto":
        style = "rich" if sys.stdout.isatty() and importlib.util.find_spec("rich") else "plain"
    if style == "rich":
        return RichProgressBar(leave=True)
    return EpochLines() if style == "plain" else None


class EpochLines(Callback):
    """``epoch 3/30  12.1 s  lr 0.0098  train loss 0.4127 accuracy 0.8712  val loss 0.3511 accuracy 0.8944 ...``

    Printed when the next epoch starts, since some figures are logged after this callback's own end-of-epoch hook.
    In a long epoch a line ``epoch 1/200  step 120/900  30 s  loss 1.9034`` comes every ``every_n_seconds``.
    """

    def __init__(self, every_n_seconds: float = 30.0) -> None:
        self.every_n_seconds = every_n_seconds
        self._start: float | None = None
        self._said = 0.0
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, trainer.current_epoch)
        self._start = self._said = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._said < self.every_n_seconds or self._start is None or not trainer.is_global_zero:
            return
        self._said = now
        print(
            f"epoch {trainer.current_epoch + 1}{_of(trainer.max_epochs)}  step {batch_idx + 1}"
            f"{_of(trainer.num_training_batches)}  {now - self._start:.0f} s  loss {outputs['loss'].item():.4f}",
            flush=True,
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, trainer.current_epoch)
        self._start = None

    def _print(self, trainer: pl.Trainer, done: int) -> None:
        if self._start is None or not trainer.is_global_zero:
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        splits = ("train", "val") if self._validated else ("train",)  # figures of an earlier epoch are not repeated
        self._validated = False
        print(
            f"epoch {done}{_of(trainer.max_epochs)}  {time.perf_counter() - self._start:.1f} s  lr {rate:.3g}"
            f"{figures(trainer.callback_metrics, splits)}",
            flush=True,
        )


def _of(total: float | None) -> str:
    return f"/{total}" if total and 0 < total < float("inf") else ""


def figures(metrics: Mapping[str, Any], splits: Sequence[str]) -> str:
    """The figures of each split without single layers: ``  train loss 0.1 accuracy 0.9  val loss 0.2 ...``."""
    text = ""
    for split in splits:
        found = {
            name[len(split) + 1 :]: float(value)
            for name, value in metrics.items()
            if name.startswith(f"{split}/") and "/layer_" not in name
        }
        if found:
            text += f"  {split}" + "".join(f" {name} {value:.4f}" for name, value in found.items())
    return text
