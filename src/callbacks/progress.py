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
    """

    def __init__(self) -> None:
        self._start: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, trainer.current_epoch)
        self._start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, trainer.current_epoch)
        self._start = None

    def _print(self, trainer: pl.Trainer, done: int) -> None:
        if self._start is None or not trainer.is_global_zero:
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        print(
            f"epoch {done}{epochs}  {time.perf_counter() - self._start:.1f} s  lr {rate:.3g}"
            f"{figures(trainer.callback_metrics, ('train', 'val'))}",
            flush=True,
        )


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
