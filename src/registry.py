"""Names in configs -> classes, imported only when asked for, and built with checked arguments.

A name is one of :data:`REGISTRY`, or the dotted name of a class of the user's (``mypackage.data.Mine``), which must
derive from the base of its kind (:data:`BASES`).
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sdn.errors import UserError
from sdn.named import is_dotted, resolve, suggestion
from src.config_check import refused
from src.paths import original_cwd

__all__ = ["BASES", "REGISTRY", "build", "check_arguments", "lookup", "suggestion"]

REGISTRY: dict[str, dict[str, str]] = {
    "dataset": {
        "aan": "src.dataloaders.aan.AAN",
        "arrays": "src.dataloaders.arrays.Arrays",
        "audio": "src.dataloaders.audio.Audio",
        "cifar": "src.dataloaders.cifar.CIFAR",
        "corpus": "src.dataloaders.corpus.Corpus",
        "digits": "src.dataloaders.digits.Digits",
        "gesture": "src.dataloaders.gesture.Gesture",
        "hub": "src.dataloaders.hub.Hub",
        "imdb": "src.dataloaders.imdb.IMDB",
        "listops": "src.dataloaders.listops.ListOps",
        "mnist": "src.dataloaders.mnist.MNIST",
        "pathfinder": "src.dataloaders.pathfinder.Pathfinder",
        "qtdb": "src.dataloaders.qtdb.QTDB",
        "sc": "src.dataloaders.speech.SpeechCommands",
        "table": "src.dataloaders.table.Table",
        "text": "src.dataloaders.text.Text",
        "ucr": "src.dataloaders.ucr.UCR",
        "wikitext": "src.dataloaders.wikitext.WikiText",
    },
    "model": {"spikingssm": "models.spike.ssm.SpikingSSM"},
    "encoder": {
        "conv": "src.tasks.encoders.ConvEncoder",
        "embedding": "src.tasks.encoders.EmbeddingEncoder",
        "linear": "src.tasks.encoders.LinearEncoder",
    },
    "decoder": {
        "per_step": "src.tasks.decoders.StepDecoder",
        "retrieval": "src.tasks.decoders.RetrievalDecoder",
        "sequence": "src.tasks.decoders.SequenceDecoder",
    },
    "task": {
        "classification": "src.tasks.classification.Classification",
        "lm": "src.tasks.language_model.LanguageModel",
        "per_step": "src.tasks.per_step.PerStep",
        "regression": "src.tasks.regression.Regression",
    },
    "optimizer": {
        "adam": "torch.optim.Adam",
        "adamw": "torch.optim.AdamW",
        "rmsprop": "torch.optim.RMSprop",
        "sgd": "torch.optim.SGD",
    },
    "scheduler": {
        "constant": "src.schedule.constant",
        "cosine_warmup": "src.schedule.cosine_warmup",
        "linear_warmup": "src.schedule.linear_warmup",
        "multistep": "torch.optim.lr_scheduler.MultiStepLR",
        "plateau": "torch.optim.lr_scheduler.ReduceLROnPlateau",
    },
    "callback": {
        "best": "src.callbacks.checkpoint.Best",
        "early_stopping": "pytorch_lightning.callbacks.EarlyStopping",
        "ema": "src.callbacks.averaging.EMA",
        "firing_rate": "src.callbacks.firing_rate.FiringRate",
        "grad_norms": "src.callbacks.grad_norms.GradientNorms",
        "last": "src.callbacks.checkpoint.Last",
        "learning_rate_monitor": "pytorch_lightning.callbacks.LearningRateMonitor",
        "nan_guard": "src.callbacks.nan_guard.NanGuard",
        "parameters": "src.callbacks.parameters.ParameterCount",
        "progress": "src.callbacks.progress.progress",
        "swa": "src.callbacks.averaging.SWA",
        "timer": "src.callbacks.timer.Timer",
    },
}

BASES: dict[str, tuple[str, ...]] = {
    "dataset": ("src.dataloaders.base.SequenceData",),
    "encoder": ("torch.nn.Module",),
    "decoder": ("torch.nn.Module",),
    "task": ("src.tasks.base.Task",),
    "optimizer": ("torch.optim.Optimizer",),
    "scheduler": ("torch.optim.lr_scheduler.LRScheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"),
    "callback": ("pytorch_lightning.callbacks.Callback",),
}
"""What a class of the user's must derive from. Backbones are not exchanged by name."""


def lookup(kind: str, name: str) -> Callable[..., Any]:
    """The class or function that ``name`` stands for among e.g. ``dataset``s, or the user's class of a dotted name.

    Raises:
        UserError: the name is unknown, or a dotted one that may not be followed or leads to no class of this kind.
    """
    if name in REGISTRY[kind]:
        return _load(REGISTRY[kind][name])
    if is_dotted(name) and kind in BASES:
        if (folder := str(original_cwd())) not in sys.path:
            sys.path.append(folder)  # a run has changed into its own folder
        return resolve(name, tuple(map(_load, BASES[kind])), kind)
    raise UserError(f"unknown {kind} {name!r}{suggestion(str(name), REGISTRY[kind])}")


def _load(path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def check_arguments(where: str, target: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse names in ``given`` that ``target`` has no parameter for.

    Raises:
        UserError: with the nearest existing name.
    """
    parameters = inspect.signature(target).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = {p.name for p in parameters}
    for key in given:
        if key not in names:
            raise UserError(f"unknown key {where}.{key}{suggestion(key, names)}")


def build(kind: str, config: Mapping[str, Any], *args: Any, **extra: Any) -> Any:
    """``lookup(kind, config["_name_"])(*args, **rest of config, **extra)``, unknown keys refused.

    Raises:
        UserError: ``_name_`` is missing or unknown, a key is no argument of the class, or the class needs another.
    """
    arguments = dict(config)
    name = arguments.pop("_name_", None)
    if name is None:
        raise UserError(f"the {kind} config has no _name_{suggestion('', REGISTRY[kind])}")
    target = lookup(kind, name)
    check_arguments(kind, target, arguments)
    try:
        inspect.signature(target).bind(*args, **arguments, **extra)
    except TypeError as error:
        raise UserError(f"{kind} {name} cannot be built from its configuration: {error}") from error
    if name not in REGISTRY[kind]:
        return target(*args, **arguments, **extra)  # a class of the user's keeps its traceback
    try:
        return target(*args, **arguments, **extra)
    except UserError:
        raise
    except (TypeError, ValueError, AssertionError, OverflowError, RuntimeError) as error:
        raise refused(kind, name, error) from error
