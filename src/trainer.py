"""Lightning's trainer from a configuration: loggers, callbacks, strategy."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from sdn.errors import UserError, reason
from src.callbacks.averaging import Averaging
from src.callbacks.interruption import Interruption
from src.checkpoint_io import AtomicCheckpointIO
from src.loggers import CSVLog, GoOn, tensorboard
from src.peers import wait_at_most
from src.registry import build, check_arguments

log = logging.getLogger(__name__)


def make_trainer(config: Mapping[str, Any]) -> pl.Trainer:
    """The trainer of a run in the current folder.

    Raises:
        UserError: an argument is unknown or Lightning refuses it.
    """
    arguments = dict(config["trainer"])
    check_arguments("trainer", pl.Trainer.__init__, arguments)
    plugins = arguments.pop("plugins", None) or []
    loggers = make_loggers(config)
    try:
        trainer = pl.Trainer(
            **arguments,
            logger=loggers or False,
            callbacks=make_callbacks(config, bool(loggers)),
            plugins=[AtomicCheckpointIO(), *(plugins if isinstance(plugins, list) else [plugins])],
            default_root_dir=".",
            enable_checkpointing=any(config["callbacks"].get(name) is not None for name in ("best", "last")),
            enable_model_summary=False,
            enable_progress_bar=_bar(config),
            use_distributed_sampler=False,  # the loaders know their share
        )
        wait_at_most(trainer.strategy, config["train"]["peer_timeout"])
        return trainer
    except (MisconfigurationException, TypeError, ValueError, OverflowError, ImportError) as error:
        raise UserError(f"trainer: {reason(error)}") from error


def make_callbacks(config: Mapping[str, Any], logging_on: bool) -> list[Callback]:
    """The callbacks that are not null, and those that ``train`` switches ask for."""
    train = config["train"]
    wanted = {name: options for name, options in config["callbacks"].items() if options is not None}
    if train["ema"]:
        wanted = {**wanted, "ema": {"decay": train["ema"], **wanted.get("ema", {})}}
    if "ema" in wanted and "swa" in wanted:
        raise UserError("train.ema and callbacks.swa both average the weights; leave one of them out")
    if train["track_grad_norms"]:
        wanted["grad_norms"] = {}
    if not logging_on:
        wanted.pop("learning_rate_monitor", None)
    built = [build("callback", {"_name_": name, **options}) for name, options in wanted.items()]
    built = [callback for callback in built if callback is not None]
    averages = [callback for callback in built if isinstance(callback, Averaging)]
    # weights are averaged before anything looks at them, and the run stops after everything else is done
    return [*averages, *(callback for callback in built if callback not in averages), GoOn(), Interruption()]


def _bar(config: Mapping[str, Any]) -> bool:
    from pytorch_lightning.callbacks import ProgressBar

    options = config["callbacks"].get("progress")
    return options is not None and isinstance(build("callback", {"_name_": "progress", **options}), ProgressBar)


def make_loggers(config: Mapping[str, Any]) -> list[Logger]:
    """CSV and TensorBoard in ``logs/``, and wandb if a project is named."""
    loggers: list[Logger] = []
    if config["logger"]["csv"]:
        loggers.append(CSVLog("logs"))
    if config["logger"]["tensorboard"] and importlib.util.find_spec("tensorboard"):
        loggers.append(tensorboard("logs"))
    wandb = config["wandb"]
    if wandb and wandb["project"] and (logger := _wandb(wandb)):
        loggers.append(logger)
    return loggers


def _wandb(options: Mapping[str, Any]) -> Logger | None:
    """A wandb logger whose failures are told once and then ignored; None if it cannot even start."""
    try:
        from pytorch_lightning.loggers import WandbLogger

        class Careful(WandbLogger):
            broken = False

            def log_metrics(self, *args: Any, **kwargs: Any) -> None:
                try:
                    if not self.broken:
                        super().log_metrics(*args, **kwargs)
                except Exception as error:
                    self.broken = True
                    log.warning("wandb failed and is left out from here on: %s", error)

        logger = Careful(save_dir=".", **options)
        _ = logger.experiment  # starts the service, or fails, now
        return logger
    except Exception as error:
        log.warning("wandb could not be started and is left out: %s", reason(error))
        return None
