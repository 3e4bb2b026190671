"""Gradient norms before clipping: of everything and of each part."""

from __future__ import annotations

from collections import defaultdict

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer


class GradientNorms(Callback):
    """Log ``grad_norm/total`` and ``grad_norm/{encoder,backbone.layers.i,...,decoder}`` (2-norms) at logging steps."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if trainer.global_step % max(1, trainer.log_every_n_steps):
            return
        parts: dict[str, list[Tensor]] = defaultdict(list)
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                parts[part(name)].append(torch.linalg.vector_norm(parameter.grad))
        norms = {name: torch.linalg.vector_norm(torch.stack(values)) for name, values in parts.items()}
        figures = {f"grad_norm/{name}": norm for name, norm in norms.items()}
        if norms:
            figures["grad_norm/total"] = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        pl_module.log_dict(figures)


def part(parameter: str) -> str:
    """``backbone.layers.3.mix.weight`` -> ``backbone.layers.3``; ``decoder.output.bias`` -> ``decoder``."""
    names = parameter.split(".")
    if "layers" in names:
        return ".".join(names[: names.index("layers") + 2])
    return names[0]
