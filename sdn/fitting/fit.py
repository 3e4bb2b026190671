"""Fit an SDN to simulated neurons: input current -> decayed membrane potential.

SmoothL1 loss, AdamW, one cosine of the learning rate over the whole fit. The data stay in memory as tensors. Steps and
evaluations of a network of one layer on a CPU run in compiled code (:mod:`sdn.fitting.fused`), whose truth are
:meth:`Fit.step` and :meth:`Fit.judge` in plain PyTorch; all else takes those themselves.
Everything random is a function of (seed, epoch), so from the state after an epoch a resumed fit repeats the interrupted
epoch and ends, on the CPU, with the bits of one that was never stopped.
The files of a fit are the business of :mod:`sdn.fitting.run`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ..errors import UserError
from ..network import SDN
from .data import NeuronData
from .metrics import SpikeMetrics, SpikeScore

try:
    from . import fused
except ImportError:  # no numba, or it may not compile
    fused = None  # type: ignore[assignment]

# Share of the training sequences kept for validation.
VALIDATION = 0.1
# Time steps between two looks at the losses, so that Ctrl-C and the progress bar wait some tenths of a second at most.
_GROUP = 1 << 22


@dataclass(frozen=True)
class FitConfig:
    """What decides a fit, besides the data."""

    lr: float = 0.01
    weight_decay: float = 0.01
    epochs: int = 100
    batch_size: int = 64
    n_layers: int = 1
    d_model: int = 8
    kernel_size: int = 8
    seed: int = 0
    refine: int = 0

    def check(self) -> FitConfig:
        """Return itself, or raise :class:`UserError` for the first number that makes no sense."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("refine", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"lr must be a positive number, not {self.lr}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UserError(f"weight_decay cannot be negative, but is {self.weight_decay}")
        return self


class Fit:
    """One fit in memory: network, optimizer, data and history.

    Args:
        config: the hyper-parameters.
        data: training data; a tenth of the sequences, chosen by the seed, is kept for validation.
        device: a torch device; the data move there.
    """

    def __init__(self, config: FitConfig, data: NeuronData, device: str = "cpu") -> None:
        if len(data) < 2 or data.input.shape[1] < 2:
            raise UserError(f"{data.path} is too small to fit to: it needs at least 2 sequences of 2 steps")
        if config.refine and len(data) < 20:
            raise UserError(f"{data.path} is too small for --refine: it needs at least 20 sequences")
        self.config, self.device = config.check(), device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.sdn = SDN(config.d_model, config.kernel_size, config.n_layers).to(device)
        self.optimizer = torch.optim.AdamW(
            self.sdn.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.input, self.mem, self.spike = (x.to(device) for x in (data.input, data.mem, data.spike))
        order = torch.randperm(len(data), generator=_generator(config.seed, 0))
        held = max(1, int(VALIDATION * len(data)))
        self.validation, self.training = (part.to(device) for part in (order[:held], order[held:]))
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self._fused: fused.Fused | None = None
        if fused and fused.fits(self.sdn, self.input, self.mem):
            self._fused = fused.Fused(self.sdn, self.optimizer, self.input, self.mem, self.spike)

    def run_epoch(self, watch: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter) -> dict[str, float]:
        """Train on every sequence once, validate, and return the epoch's row of the metrics table.

        Args:
            watch: what the batches pass through on their way, such as a progress bar.

        Raises:
            UserError: the loss is not finite.
        """
        config, started = self.config, time.monotonic()
        order = torch.randperm(len(self.training), generator=_generator(config.seed, self.epoch + 1))
        batches = self.training[order.to(self.device)].split(config.batch_size)
        # One half period over the whole fit, falling with every step.
        progress = ((self.epoch + step / len(batches)) / config.epochs for step in range(len(batches)))
        rates = [config.lr * (1 + math.cos(math.pi * part)) / 2 for part in progress]
        group = max(1, _GROUP // (config.batch_size * self.input.shape[1]))
        total, done, waiting = 0.0, 0, []
        self.sdn.train()
        for index in watch(batches):
            waiting.append(index)
            if len(waiting) < group and done + len(waiting) < len(batches):
                continue
            for index, loss in zip(waiting, self.steps(waiting, rates[done : done + len(waiting)]), strict=False):
                done += 1
                self._check_finite(loss, f"step {done}")
                total += loss * len(index)
            waiting = []
        lr = rates[-1]
        loss, score = self.validate()
        self._check_finite(loss, "validation")
        self.epoch += 1
        row = {"epoch": self.epoch, "lr": lr, "train_loss": total / len(self.training), "val_loss": loss}
        self.history.append(row | figures(score, "val_") | {"seconds": time.monotonic() - started})
        return self.history[-1]

    def _check_finite(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise UserError(f"the loss became {loss} in epoch {self.epoch + 1}, {where}; lower --lr ({self.config.lr})")

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """``(current, mem)`` of the sequences ``index (B,)``, each ``(B, T)``; index_select copies whole rows."""
        return self.input.index_select(0, index), self.mem.index_select(0, index)

    def steps(self, batches: Sequence[Tensor], rates: Sequence[float]) -> list[float]:
        """An optimizer step on each batch of row numbers; the losses, up to the first that is not finite."""
        if self._fused:
            return self._fused.steps(batches, rates)
        losses: list[float] = []
        for index, lr in zip(batches, rates, strict=True):
            losses.append(self.step(*self.batch(index), lr))
            if not math.isfinite(losses[-1]):
                break
        return losses

    def step(self, current: Tensor, mem: Tensor, lr: float) -> float:
        """One optimizer step on a batch ``(B, T)``; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = smooth_l1_loss(self.sdn(current), mem)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self) -> tuple[float, SpikeScore]:
        """Loss and figures on the validation sequences."""
        return self._fused.score(self.validation) if self._fused else self.judge()

    @torch.no_grad()
    def judge(self) -> tuple[float, SpikeScore]:
        """The same in plain PyTorch."""
        self.sdn.eval()
        metrics, total = SpikeMetrics(), 0.0
        for index in self.validation.split(256):
            current, mem = self.batch(index)
            predicted = self.sdn(current)
            total += smooth_l1_loss(predicted, mem).item() * len(index)
            metrics.update(predicted, mem, current, self.spike[index])
        return total / len(self.validation), metrics.score()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to use the network; with the optimizer's state, to go on."""
        return {"model": self.sdn.state_dict(), "epoch": self.epoch, "history": self.history}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state` plus ``optimizer``.

        Raises:
            UserError: a state of another network.
        """
        try:
            self.sdn.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.history = state["epoch"], list(state["history"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError("the checkpoint is damaged: its state is not one of this network; start again") from error


def figures(score: SpikeScore, prefix: str = "") -> dict[str, float]:
    """The figures that reports and tables give, by name."""
    return {
        f"{prefix}mae_mean": score.mae_mean,
        f"{prefix}mae_std": score.mae_std,
        f"{prefix}mae_max": score.mae_max,
        f"{prefix}spike_accuracy": score.spike_accuracy,
        f"{prefix}wrong_over_true": score.ratio,
    }


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 20) + stream)
