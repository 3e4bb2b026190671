"""Averaged weights: validated, saved and tested in place of the raw ones, which training goes on with."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn
from torch.optim.swa_utils import get_ema_avg_fn

from sdn.errors import UserError


class Averaging(WeightAveraging):
    """What both averages have in common. Two rules beside Lightning's own:

    - until the average has begun it is the raw weights, not those of the initialisation;
    - after the fit a checkpoint is loaded as it is: its ``state_dict`` holds the average, and the test is of that.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = None  # what follows has the averaged weights already

    @torch.no_grad()
    def _follow(self, pl_module: pl.LightningModule) -> None:
        if self._average_model is None or self._average_model.n_averaged:
            return
        average = self._average_model.module
        for own, now in zip(
            itertools.chain(average.parameters(), average.buffers()),
            itertools.chain(pl_module.parameters(), pl_module.buffers()),
            strict=True,
        ):
            own.copy_(now)


class EMA(Averaging):
    """Exponential moving average of weights and statistics: a <- decay a + (1 - decay) w, after every
    ``update_every_n_steps``-th optimizer step from ``update_starting_at_step`` or ``update_starting_at_epoch`` on.

    Raises:
        UserError: the decay is no number between 0 and 1, or an interval is none.
    """

    def __init__(
        self,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        device: str | None = None,
    ) -> None:
        if not 0 < decay < 1:
            raise UserError(f"train.ema is a decay between 0 and 1, not {decay}")
        if update_every_n_steps < 1:
            raise UserError(f"callbacks.ema.update_every_n_steps must be at least 1, not {update_every_n_steps}")
        super().__init__(device=device, avg_fn=get_ema_avg_fn(decay))
        self.every, self.first_step, self.first_epoch = (
            update_every_n_steps,
            update_starting_at_step or 0,
            update_starting_at_epoch or 0,
        )
        self._epoch = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch = trainer.current_epoch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is None or step_idx < self.first_step or self._epoch < self.first_epoch:
            return False
        return step_idx % self.every == 0


class SWA(Averaging):
    """Stochastic weight averaging (Izmailov et al. 2018): from ``swa_epoch_start`` on (an epoch, or a fraction of the
    run) the learning rate goes over to ``swa_lrs`` within ``annealing_epochs``, and the weights at the end of every
    epoch are averaged equally. Statistics of batch norms are computed anew for the average, by a pass over the
    training data.

    Raises:
        UserError: a value out of range, or a fraction of a run whose length is not known.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: str = "cos",
        device: str | None = None,
    ) -> None:
        rates = swa_lrs if isinstance(swa_lrs, list) else [swa_lrs]
        if not rates or not all(rate > 0 for rate in rates):
            raise UserError(f"callbacks.swa.swa_lrs must be a learning rate above 0, or one a group, not {swa_lrs}")
        if annealing_strategy not in ("cos", "linear"):
            raise UserError(f"callbacks.swa.annealing_strategy must be cos or linear, not {annealing_strategy!r}")
        whole = isinstance(swa_epoch_start, int)
        if swa_epoch_start < 0 or (not whole and swa_epoch_start > 1):
            raise UserError(
                f"callbacks.swa.swa_epoch_start is an epoch or a fraction of the run, not {swa_epoch_start}"
            )
        super().__init__(device=device)  # no averaging function: every epoch weighs the same
        self.rates, self.start, self.epochs = rates, swa_epoch_start, max(1, annealing_epochs)
        self.strategy = annealing_strategy
        self._first = 0
        self._planned: list[float] = []
        self._given: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(self.start, float) and not trainer.max_epochs > 0:
            raise UserError("callbacks.swa.swa_epoch_start is a fraction of a run without an end; give an epoch")
        self._first = int(self.start * trainer.max_epochs) if isinstance(self.start, float) else self.start
        groups = trainer.optimizers[0].param_groups
        if len(self.rates) not in (1, len(groups)):
            raise UserError(f"callbacks.swa.swa_lrs has {len(self.rates)} rates for {len(groups)} groups of parameters")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Between the scheduler's rate, which the scheduler finds again when its turn comes, and SWA's."""
        done = trainer.current_epoch - self._first + 1
        if done < 1:
            return
        share = min(1.0, done / self.epochs)
        share = (1 - math.cos(math.pi * share)) / 2 if self.strategy == "cos" else share
        groups = trainer.optimizers[0].param_groups
        now = [group["lr"] for group in groups]
        if now != self._given:  # the scheduler has spoken
            self._planned = now
        rates = self.rates if len(self.rates) > 1 else self.rates * len(groups)
        self._given = [(1 - share) * p + share * rate for p, rate in zip(self._planned, rates, strict=True)]
        for group, lr in zip(groups, self._given, strict=True):
            group["lr"] = lr

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._update(trainer, pl_module, done=True)
        if self._given:  # schedulers that go by epochs multiply what they find
            for group, lr in zip(trainer.optimizers[0].param_groups, self._planned, strict=True):
                group["lr"] = lr

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self._first

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._update(trainer, pl_module, done=trainer.is_last_batch)
        super().on_validation_epoch_start(trainer, pl_module)

    def _update(self, trainer: pl.Trainer, pl_module: pl.LightningModule, done: bool) -> None:
        """Once an epoch is ``done``, before its validation: what is validated and saved is the new average."""
        epoch = trainer.current_epoch
        if done and epoch > self._latest_update_epoch and self.should_update(epoch_idx=epoch):
            self._average_model.update_parameters(pl_module)
            self._latest_update_epoch = epoch
            self._renew_statistics(pl_module, trainer.num_training_batches)

    @torch.no_grad()
    def _renew_statistics(self, pl_module: pl.LightningModule, batches: int) -> None:
        average = self._average_model.module
        norms = [part for part in average.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        norms = [norm for norm in norms if norm.track_running_stats and norm.momentum is not None]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        average.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for i, batch in enumerate(itertools.islice(pl_module.train_dataloader(), batches)):
                x, _, z = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
                for norm in norms:
                    norm.momentum = 1 / (i + 1)  # the plain mean over batches
                average(x, z)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if dist.is_available() and dist.is_initialized():
                for statistic in (norm.running_mean, norm.running_var):
                    dist.all_reduce(statistic.div_(dist.get_world_size()))

    def state_dict(self) -> dict[str, Any]:
        own = {"epoch": self._latest_update_epoch, "planned": self._planned, "given": self._given}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._latest_update_epoch = state_dict.get("epoch", -1)
        self._planned, self._given = state_dict.get("planned", []), state_dict.get("given", [])
