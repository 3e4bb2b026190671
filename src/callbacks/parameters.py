"""How many parameters there are."""

from __future__ import annotations

import logging

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import nn

log = logging.getLogger(__name__)


def count(module: nn.Module) -> dict[str, int]:
    """``{"total": ..., "trainable": ..., "fixed": ...}``, parameters only (an SDN is buffers and counts nowhere)."""
    total = sum(p.numel() for p in module.parameters())
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "fixed": total - trainable}


class ParameterCount(Callback):
    """Say and log ``params/{total,trainable,fixed}`` when training starts."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        numbers = count(pl_module)
        share = "" if not numbers["fixed"] else f", {numbers['trainable']:,} of them trainable"
        log.info("%s parameters%s", f"{numbers['total']:,}", share)
        for logger in trainer.loggers:
            logger.log_metrics({f"params/{key}": value for key, value in numbers.items()}, step=0)
