"""Progress: a rich bar on a terminal, one plain line an epoch in a file or a pipe."""

from __future__ import annotations

import importlib.util
import sys
import time

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
    """``epoch 3/30  12.1 s  lr 0.0098  train loss 0.4127 accuracy 0.8712  val loss 0.3511 accuracy 0.8944 ...``"""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self._start
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {seconds:.1f} s  lr {rate:.3g}"
            f"{figures(trainer, ('train', 'val'))}",
            flush=True,
        )


def figures(trainer: pl.Trainer, splits: tuple[str, ...]) -> str:
    """The figures of the last epoch, without single layers: ``  train loss 0.1 accuracy 0.9  val loss ...``."""
    text = ""
    for split in splits:
        found = {
            name[len(split) + 1 :]: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{split}/") and "/layer_" not in name
        }
        if found:
            text += f"  {split}" + "".join(f" {name} {value:.4f}" for name, value in found.items())
    return text
