"""Values that cannot be: every value of the configuration against the type that its class asks for, and a few ranges.

The types are those of the signatures, so a class of the user's is checked by its own hints; what has no hint passes.
"""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdn.errors import UserError

REQUIRED = ("train", "tolerance", "logger", "dataset", "task", "model", "loader", "optimizer", "scheduler", "trainer")
_TEXT = str | int | float | None
SECTIONS: dict[str, dict[str, Any]] = {
    "train": {
        "seed": int,
        "mode": str,
        "ckpt": str | None,
        "test": bool,
        "overwrite": bool,
        "accept_changed_data": bool,
        "peer_timeout": float,
        "validate_at_start": bool,
        "monitor": str,
        "monitor_mode": str,
        "ema": float | None,
        "track_grad_norms": bool,
        "float32_precision": str,
        "pretrained_model_path": str | None,
        "pretrained_model_strict_load": bool,
        "ignore_pretrained_layers": list[str],
        "pretrained_freeze_encoder": bool,
    },
    "tolerance": {"id": _TEXT, "logdir": str},
    "logger": {"csv": bool, "tensorboard": bool},
    "wandb": dict.fromkeys(("project", "group", "name", "id", "mode"), _TEXT),
}
"""Sections that are no class's arguments."""

_SEED = (0, 2**32 - 1)
RANGES: dict[str, tuple[float | None, float | None]] = {
    "train.seed": _SEED,
    "dataset.seed": _SEED,
    "dataset.generator_seed": _SEED,
    "dataset.permutation_seed": _SEED,
    "dataset.workers": (1, None),
    "train.ema": (0, 1),
    "train.peer_timeout": (0.01, None),
    "loader.batch_size": (1, None),
    "loader.eval_batch_size": (1, None),
    "loader.num_workers": (0, 1000),
    "optimizer.lr": (0, None),
    "optimizer.weight_decay": (0, None),
    "optimizer.momentum": (0, 1),
    "model.d_model": (1, None),
    "model.n_layers": (1, 10_000),
    "model.layer.d_state": (2, None),
    "model.layer.lr": (0, None),
    "scheduler.num_training_steps": (1, None),
    "scheduler.patience": (0, None),
    "scheduler.cooldown": (0, None),
    "scheduler.min_lr": (0, None),
    "trainer.max_epochs": (-1, None),
    "trainer.max_steps": (-1, None),
    "trainer.min_epochs": (0, None),
    "trainer.min_steps": (0, None),
    "trainer.num_nodes": (1, None),
    "trainer.accumulate_grad_batches": (1, None),
    "trainer.check_val_every_n_epoch": (1, None),
    "trainer.gradient_clip_val": (0, None),
    "trainer.num_sanity_val_steps": (-1, None),
    "trainer.log_every_n_steps": (0, None),
    "callbacks.firing_rate.every_n_steps": (1, None),
    "callbacks.nan_guard.every_n_steps": (1, None),
    "callbacks.early_stopping.patience": (0, None),
    "callbacks.swa.annealing_epochs": (0, None),
    "callbacks.ema.update_starting_at_step": (0, None),
}
"""Key -> (least, largest) value."""

ABOVE_ZERO = {
    "scheduler.factor": "",
    "scheduler.gamma": "",
    "trainer.max_time": "",
    "trainer.val_check_interval": "; limit_val_batches=0 validates never",
}
"""Key -> what is said besides: factors of a learning rate, which 0 would end and less turn round, and spans."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "train.float32_precision": ("highest", "high", "medium"),
    "trainer.deterministic": (None, False, True, "warn"),
    "wandb.mode": ("online", "offline", "disabled", None),
}


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuse a section that is no group of keys.

    Raises:
        UserError: which, and how to leave a part of it out.
    """
    for section in (*REQUIRED, "callbacks", "encoder", "decoder", "wandb"):
        value = config.get(section, {})
        if section in ("encoder", "decoder", "wandb") and value is None:
            continue
        if not isinstance(value, Mapping):
            how = "leave one out with callbacks.NAME=null" if section == "callbacks" else f"see --cfg job -p {section}"
            raise UserError(f"{section} is a group of keys and cannot be {_shown(value)}; {how}")
    for name, options in config.get("callbacks", {}).items():
        if options is not None and not isinstance(options, Mapping):
            raise UserError(f"callbacks.{name} is a group of keys or null, not {_shown(options)}")
    if not isinstance(config.get("model", {}).get("layer", {}), Mapping):
        raise UserError(f"model.layer is a group of keys and cannot be {_shown(config['model']['layer'])}")


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse a value whose type is not the one asked for, NaN and infinity, and what lies outside of its range.

    Raises:
        UserError: with the key, what it must be and what it is.
    """
    for section, hints in SECTIONS.items():
        _check(section, config.get(section) or {}, hints)
        for key, value in (config.get(section) or {}).items():
            if value == "":  # as a variable of a shell leaves it that is not set
                raise UserError(f"{section}.{key} is empty; give a value, or leave it out")
    for where, options, target in _parts(config):
        hints = _hints(target)
        if where == "scheduler":
            hints["num_training_steps"] = int | None  # null: counted when the run starts
        _check(where, options, hints)
    layer = config["model"].get("layer") or {}
    _check("model.layer", layer, _layer_hints())
    for key, (least, largest) in RANGES.items():
        value = _get(config, key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if least is not None and value < least:
                raise UserError(f"{key} must be at least {least}, not {value}")
            if largest is not None and value > largest:
                raise UserError(f"{key} must be at most {largest}, not {value}")
    for key, besides in ABOVE_ZERO.items():
        value = _get(config, key)
        if (amount := _amount(value)) is not None and amount <= 0:
            raise UserError(f"{key} must be above 0, not {_shown(value)}{besides}")
    milestones = _get(config, "scheduler.milestones")
    if isinstance(milestones, list) and any(isinstance(step, int) and step < 0 for step in milestones):
        raise UserError(f"scheduler.milestones are epochs from 0 on, not {milestones}")
    for key, choices in CHOICES.items():
        if (value := _get(config, key)) not in choices:
            raise UserError(f"{key} must be one of {', '.join(map(_shown, choices))}, not {_shown(value)}")


def _amount(value: Any) -> float | None:
    """A number, or a time as Lightning takes it, ``{minutes: 5}`` or ``00:00:05:00``, by the sum of its parts."""
    if isinstance(value, str) and re.fullmatch(r"\d+(:\d+){3}", value):
        return sum(map(int, value.split(":")))
    if isinstance(value, Mapping) and all(isinstance(part, (int, float)) for part in value.values()):
        return sum(value.values())
    return value if isinstance(value, (int, float)) else None


def refused(kind: str, name: str, error: Exception) -> UserError:
    """A constructor's own refusal of a user's values, as one sentence."""
    lines = str(error).strip().splitlines()
    return UserError(f"{kind} ({name}) cannot be built from its values: {lines[0] if lines else type(error).__name__}")


def _parts(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Callable[..., Any]]]:
    """(section, its values, the class or function that takes them)."""
    import pytorch_lightning as pl

    from src.dataloaders.loading import LoaderOptions
    from src.registry import REGISTRY, lookup

    parts = [("loader", config["loader"], LoaderOptions), ("trainer", config["trainer"], pl.Trainer)]
    for group in REGISTRY:
        part = config.get(group)
        if isinstance(part, Mapping) and part.get("_name_") is not None:
            options = {key: value for key, value in part.items() if key not in ("_name_", "layer")}
            parts.append((group, options, lookup(group, part["_name_"])))
    for name, options in config["callbacks"].items():
        options = dict(options or {})
        parts.append((f"callbacks.{name}", options, lookup("callback", options.pop("_name_", name))))
    return parts


def _layer_hints() -> dict[str, Any]:
    from models.spike.ss4d import SS4D
    from sdn.neurons import make_neuron

    hints = _hints(make_neuron) | _hints(SS4D)
    hints["neuron"] = str | Mapping | None
    hints["sdn"] = str | None
    return hints


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> type hint, with None where that is the default."""
    function = target.__init__ if isinstance(target, type) else target
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    hints = _resolved(function)
    return {
        name: typing.Optional[hint] if name in parameters and parameters[name].default is None else hint  # noqa: UP045
        for name, hint in hints.items()
        if name != "return"
    }


def _resolved(function: Callable[..., Any]) -> dict[str, Any]:
    """The type hints of a function, one by one: what a library imports for type checkers alone is looked for where
    types come from, and a hint that cannot be found says nothing."""
    found: dict[str, Any] = {}
    names = {**vars(collections.abc), **vars(typing), **getattr(inspect.unwrap(function), "__globals__", {})}
    for name, hint in getattr(function, "__annotations__", {}).items():
        with contextlib.suppress(NameError, TypeError, AttributeError, SyntaxError):
            found |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), names)
    return found


def _check(where: str, options: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    for key, value in options.items():
        name = f"{where}.{key}"
        if (bad := _not_finite(value)) is not None:
            raise UserError(f"{name} must be a finite number, not {bad}")
        if type(value) is int and abs(value) >= 2**63 and where not in ("tolerance", "wandb"):  # there it is a name
            raise UserError(f"{name} must be a number that 64 bits hold, not {value}")
        if key in hints and not fits(value, hints[key]):
            raise UserError(f"{name} must be {describe(hints[key])}, not {_shown(value)}")


def _not_finite(value: Any) -> float | None:
    if isinstance(value, float) and not math.isfinite(value):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return next((bad for part in parts if (bad := _not_finite(part)) is not None), None)


def _is_tensor(hint: Any) -> bool:
    """Whether ``hint`` is torch.Tensor, asked without importing torch."""
    return isinstance(hint, type) and (hint.__module__, hint.__name__) == ("torch", "Tensor")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value of a configuration may be given where ``hint`` stands; yes where the hint says nothing."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in arguments)
    if origin is typing.Literal or hint is Any or isinstance(hint, typing.TypeVar):
        return True  # the class itself knows its words
    if _is_tensor(hint):
        return False  # it is iterable, and no list
    kind = origin or hint
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in (str, Path):
        return isinstance(value, str)
    if kind is collections.abc.Callable or not isinstance(kind, type):
        return True
    if issubclass(kind, (str, bytes)):
        return isinstance(value, str)
    if issubclass(kind, Mapping) or kind is collections.abc.Mapping:
        return isinstance(value, Mapping)
    if kind in (list, tuple, set, frozenset) or issubclass(kind, collections.abc.Iterable):
        if not isinstance(value, (list, tuple)):
            return False
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return not arguments or all(fits(part, arguments[0]) for part in value)
    return False  # an object, which no configuration can hold


def describe(hint: Any) -> str:
    """``hint`` in words: "a whole number or null"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_tensor(hint):
        return ""
    if origin in (typing.Union, types.UnionType):
        words = [describe(part) for part in arguments]
        words = [
            word for word in dict.fromkeys(words) if word and not (word == "a whole number" and "a number" in words)
        ]
        return " or ".join(sorted(words, key=lambda word: word == "null"))
    if hint is None or hint is type(None):
        return "null"
    kind = origin or hint
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if kind in simple:
        return simple[kind]
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a group of keys"
    if isinstance(kind, type) and issubclass(kind, collections.abc.Iterable):
        return "a list"
    return ""


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
