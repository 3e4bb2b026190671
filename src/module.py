"""The LightningModule: encoder, backbone, decoder and task, and what they report."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from models.spike.heads import encode
from sdn.errors import UserError
from src import random_state
from src.dataloaders.base import SequenceData
from src.dataloaders.loading import Loader, LoaderOptions, Shard
from src.optim import make_optimizer
from src.registry import build, check_arguments
from src.same_batches import SameBatches
from src.schedule import make_scheduler
from src.tasks.base import Shapes, Task
from src.tasks.metrics import Totals

Batch = tuple[Tensor, Tensor, dict[str, Any]]


class SequenceModule(pl.LightningModule):
    """One experiment: ``decoder(backbone(encoder(x)))`` scored by a task.

    Args:
        config: the composed configuration as plain data; it goes into every checkpoint.
        data: the prepared data family; a :class:`~types.SimpleNamespace` of its widths is enough for a model that
            is not trained.

    Logged per epoch are ``{train,val,test}/{loss,accuracy,...}`` over every sample exactly once, and ``trainer/loss``
    at single steps.
    """

    def __init__(self, config: Mapping[str, Any], data: SequenceData | Shapes) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.backbone: nn.Module = build("model", config["model"])
        width_in, width_out = self.backbone.d_model, self.backbone.d_output
        self.task: Task = build("task", config["task"], data, width_in)
        if self.task.causal and config["model"].get("layer", {}).get("bidirectional"):
            raise UserError("this task predicts what comes next; set model.layer.bidirectional=false")
        self.encoder = self._part("encoder", self.task.encoder, data, width_in)
        self.decoder = self._part("decoder", self.task.decoder, data, width_out)
        if hasattr(self.encoder, "shorten") and getattr(self.decoder, "every_step", False):
            raise UserError("an encoder of windows leaves no step for every label; choose encoder=linear or embedding")
        self._decodes_lengths = "lengths" in inspect.signature(self.decoder.forward).parameters
        self.totals: dict[str, Totals] = {"train": Totals()}
        self.eval_names: dict[str, list[str]] = {}
        self._resumed: dict[str, Any] | None = None

    def _part(self, kind: str, of_task: nn.Module | None, data: Shapes, width: int) -> nn.Module:
        part = self.config[kind]
        if part and part.get("_name_") is not None:
            return build(kind, part, data, width)
        if of_task is None:
            choice = ("encoder=embedding" if data.n_tokens else "encoder=linear", "decoder=sequence")[kind == "decoder"]
            raise UserError(f"{kind}=none, but this task brings no {kind} of its own; choose {choice}")
        return of_task

    @classmethod
    def from_checkpoint(cls, path: str | Path, map_location: str | torch.device = "cpu") -> SequenceModule:
        """The model of a checkpoint with its weights, in evaluation mode, without its data set."""
        from src.checkpoint import load_checkpoint
        from src.restore import module_of

        return module_of(load_checkpoint(path), path).to(map_location).eval()

    def facts(self) -> dict[str, Any]:
        """What a user of the trained network must know of its data, see :meth:`SequenceData.facts`."""
        tell = getattr(self.data, "facts", {})
        return tell() if callable(tell) else tell

    # -- forward and scores ---------------------------------------------------------------------------------------

    def forward(self, x: Tensor, z: Mapping[str, Any] | None = None) -> Tensor:
        """x as the data set delivers it and its ``z`` -> the decoder's output, e.g. logits (B, C)."""
        z = z or {}
        x, lengths = encode(self.encoder, x, z.get("lengths"))
        h, _ = self.backbone(x, lengths=lengths, rate=float(z.get("rate", 1.0)))
        return self.decoder(h, lengths=lengths) if self._decodes_lengths else self.decoder(h)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y, z = batch
        sums = self.task(self(x, z), y, z)
        self.totals["train"].add(sums)
        total, count = sums["loss"]
        loss = total / count
        self.log("trainer/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("val", batch, dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test", batch, dataloader_idx)

    def _evaluate(self, split: str, batch: Batch, dataloader_idx: int) -> None:
        x, y, z = batch
        self.totals[self.eval_names[split][dataloader_idx]].add(self.task(self(x, z), y, z))

    # -- figures of an epoch --------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        self._report("train")

    def on_validation_epoch_end(self) -> None:
        for name in self.eval_names["val"]:
            self._report(name)

    def on_test_epoch_end(self) -> None:
        for name in self.eval_names["test"]:
            self._report(name)

    def _report(self, name: str) -> None:
        means = self.totals[name].means()
        self.totals[name].reset()
        # the sums are reduced already: every process logs the same value
        figures = self.task.report(means) if means else {}
        self.log_dict({f"{name}/{key}": value for key, value in figures.items()}, prog_bar=name != "train")

    # -- data -----------------------------------------------------------------------------------------------------

    def _options(self) -> LoaderOptions:
        check_arguments("loader", LoaderOptions, self.config["loader"])
        return LoaderOptions(**self.config["loader"])

    def _shard(self) -> Shard:
        return Shard(self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> Loader | SameBatches:
        loader = self.data.train_loader(self._options(), self._shard(), self.config["train"]["seed"])
        wanted = getattr(self.trainer, "overfit_batches", 0)
        if not wanted:
            return loader
        return SameBatches(loader, wanted)

    def val_dataloader(self) -> list[Loader]:
        return self._eval_loaders("val")

    def test_dataloader(self) -> list[Loader]:
        return self._eval_loaders("test")

    def _eval_loaders(self, split: str) -> list[Loader]:
        loaders = self.data.eval_loaders(split, self._options(), self._shard())
        self.eval_names[split] = list(loaders)
        self.totals |= {name: Totals() for name in loaders}
        return list(loaders.values())

    # -- optimisation ---------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        train = self.config["train"]
        optimizer = make_optimizer(self.config["optimizer"], self, self.backbone)
        scheduler = make_scheduler(
            self.config["scheduler"], optimizer, self.total_steps, train["monitor"], train["monitor_mode"]
        )
        if isinstance(scheduler["scheduler"], ReduceLROnPlateau):  # it looks where there is something new to see
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def total_steps(self) -> int:
        """Optimizer steps of the whole run, from epochs, data, limits and accumulation.

        Raises:
            UserError: the run has no end but its time.
        """
        trainer = self.trainer
        epochs = 1000 if trainer.max_epochs is None else trainer.max_epochs  # Lightning's own default
        if epochs < 0 and trainer.max_steps <= 0:
            raise UserError(
                "this schedule falls towards the end of the run, and a run without trainer.max_epochs or "
                "trainer.max_steps has none; give one of them, or scheduler.num_training_steps, or scheduler=constant"
            )
        batches = len(self.train_dataloader())
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = -(-batches // trainer.accumulate_grad_batches) * max(0, epochs)
        if trainer.max_steps > 0:
            steps = min(steps, trainer.max_steps) if steps > 0 else trainer.max_steps
        return max(1, steps)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, the widths, what the data consist of, and for every process the random state and the
        sums of its epoch."""
        own = {"random": random_state.get(), "totals": self.totals["train"].state_dict()}
        everyone = [own]
        if dist.is_available() and dist.is_initialized():
            everyone = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, own)
        checkpoint["config"] = dict(self.config)
        checkpoint["shapes"] = {name: getattr(self.data, name, None) for name in Shapes.__annotations__}
        checkpoint["facts"] = self.facts()
        checkpoint["contents"] = getattr(self.data, "contents", None)
        checkpoint["processes"] = everyone

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        everyone = checkpoint.get("processes", [])
        # with another number of processes there is no state to go on from: the run continues with fresh draws
        self._resumed = everyone[self.trainer.global_rank] if len(everyone) == self.trainer.world_size else None

    def on_train_start(self) -> None:
        if self._resumed:
            self.totals["train"].load_state_dict(self._resumed["totals"], self.device)
            random_state.set(self._resumed["random"])
            self._resumed = None
        elif self.trainer.world_size > 1:
            torch.manual_seed(self.config["train"]["seed"] + self.trainer.global_rank)  # dropout masks of its own
