"""How often neurons fire: per layer and over all, read from their outputs as they pass."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.spike.lengths import real_steps
from src.tasks.metrics import Totals


def neurons(backbone: nn.Module) -> list[nn.Module]:
    """The neuron of every layer, in order: submodules called ``neuron``."""
    return [module for name, module in backbone.named_modules() if name.rpartition(".")[2] == "neuron"]


class FiringRate(Callback):
    """Log ``{train,val,test}/firing_rate/layer_i`` and their mean ``{train,val,test}/firing_rate`` once an epoch.

    The rate is spikes per neuron and step; of a neuron that sends on values, those other than 0. Where the data set
    gives ``lengths``, steps in the padding do not count. Training measures every ``every_n_steps``-th batch, which
    costs one pass over the spikes of that batch. Only a batch that is measured is watched: a network whose neurons are
    watched takes the plain path, layer by layer.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps
        self._totals: dict[str, Totals] = {}
        self._handles: list[RemovableHandle] = []
        self._prefix: str | None = None
        self._z: dict[str, Any] = {}

    def _watch(self, pl_module: pl.LightningModule) -> None:
        if not self._handles:
            for i, neuron in enumerate(neurons(pl_module.backbone)):
                self._handles.append(neuron.register_forward_hook(self._hook(i)))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, layer: int) -> Any:
        def measure(module: nn.Module, inputs: Any, spikes: Tensor) -> None:
            if self._prefix is not None:
                totals = self._totals.setdefault(self._prefix, Totals())
                totals.add({f"layer_{layer}": count_spikes(spikes, self._z)})

        return measure

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._prefix = "train" if batch_idx % self.every_n_steps == 0 else None
        self._z = batch[2]
        self._watch(pl_module) if self._prefix else self._remove()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._prefix, self._z = pl_module.eval_names["val"][dataloader_idx], batch[2]
        self._watch(pl_module)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._prefix, self._z = pl_module.eval_names["test"][dataloader_idx], batch[2]
        self._watch(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(pl_module, ["train"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(pl_module, pl_module.eval_names["val"])

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(pl_module, pl_module.eval_names["test"])

    def _report(self, pl_module: pl.LightningModule, prefixes: list[str]) -> None:
        self._prefix = None
        self._remove()
        for prefix in prefixes:
            rates = self._totals.pop(prefix, Totals()).means()
            figures = {f"{prefix}/firing_rate/{layer}": rate for layer, rate in rates.items()}
            if rates:
                figures[f"{prefix}/firing_rate"] = sum(rates.values()) / len(rates)
            pl_module.log_dict(figures)


@torch.no_grad()
def count_spikes(spikes: Tensor, z: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Spikes (B, H, L) -> (their number, the neuron steps they were drawn from), without padding and repeats."""
    B, H, L = spikes.shape
    lengths, weight = z.get("lengths"), z.get("weight")
    if lengths is None and weight is None:
        return spikes.count_nonzero().float(), torch.tensor(float(spikes.numel()), device=spikes.device)
    steps = torch.full((B,), L, device=spikes.device) if lengths is None else lengths.to(spikes.device)
    if weight is not None:  # of samples; retrieval has two sequences a sample
        steps = steps * weight.to(spikes.device).repeat(B // len(weight))
    inside = real_steps(steps, L)
    return (spikes.count_nonzero(1) * inside).sum().float(), steps.clamp_max(L).sum() * float(H)
