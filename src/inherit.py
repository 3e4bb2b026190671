"""A checkpoint holds its configuration: what is judged or continued is the network that was trained.

Judging (validate, test) takes model, task, data and loaders from the checkpoint, with what the user named on top.
Continuing (fit) compares and refuses what would make it another run.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sdn.errors import UserError

log = logging.getLogger(__name__)

JUDGED = ("model", "task", "encoder", "decoder", "dataset", "loader")
"""Sections that a checkpoint brings along where it is judged."""
PIPELINE = ("task", "encoder", "decoder", "dataset")

CONTINUED = {
    "dataset": None,
    "task": None,
    "encoder": None,
    "decoder": None,
    "model": None,
    "optimizer": None,
    "scheduler": None,
    "loader": None,
    "train": ("seed", "ema", "pretrained_freeze_encoder"),
    "trainer": (
        "precision",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "gradient_clip_algorithm",
        "sync_batchnorm",
        "overfit_batches",
    ),
}
"""Sections, or keys of them, that a continued run must share with its checkpoint. Free are limits, epochs, devices,
loggers, callbacks: what a run on another machine, or a longer one, needs."""
FREE = {
    "dataset.data_dir",
    "loader.eval_batch_size",
    "loader.num_workers",
    "loader.pin_memory",
    "model.layer.sdn",  # its weights are in the checkpoint
}
"""Of those, keys that only say where things lie or how fast they come."""


class Composed(dict):
    """A configuration that knows what the user named: ``overrides``, the words of the command line."""

    def __init__(self, values: Mapping[str, Any], overrides: Sequence[str] | None = None) -> None:
        super().__init__(values)
        self.overrides = None if overrides is None else list(overrides)


def judged(config: Mapping[str, Any], kept: Mapping[str, Any], overrides: Sequence[str] | None) -> dict[str, Any]:
    """The configuration to judge a checkpoint by: ``kept``, the checkpoint's own, with what ``overrides`` name.

    Args:
        config: the composed configuration.
        overrides: what the user named; None if nobody knows, and then ``config`` is taken as it is.

    Raises:
        UserError: the user named an experiment on other data, or another ``faithful``.
    """
    if overrides is None:
        return dict(config)
    result = dict(config) | {section: copy.deepcopy(kept[section]) for section in JUDGED if section in kept}
    result["train"] = dict(config["train"])
    for key in ("monitor", "monitor_mode"):
        result["train"][key] = kept.get("train", {}).get(key, result["train"][key])
    named = [key for word in overrides if (key := _key(word))]
    for key in named:
        section, _, rest = key.partition(".")
        if key == "experiment":
            _same_data(config, kept, named)
        elif key == "faithful" and config.get("faithful") != kept.get("faithful"):
            raise UserError(
                f"the checkpoint was trained with faithful={_shown(kept.get('faithful'))} and is judged so; to judge "
                "it otherwise name the single keys"
            )
        elif key == "pipeline":
            result |= {part: config[part] for part in PIPELINE}
        elif section in JUDGED and not rest:
            result[section] = config[section]
        elif section in (*JUDGED, "train") and rest:
            _copy(config[section], result[section], rest.split("."))
    return result


WHERE = "dataset.path"
"""Free where contents are compared (:mod:`src.dataloaders.contents`): data may have moved."""


def check_continues(
    config: Mapping[str, Any],
    kept: Mapping[str, Any],
    overrides: Sequence[str] | None,
    source: object,
    contents_known: bool = False,
) -> None:
    """Refuse to go on with a checkpoint as another network or another run.

    Args:
        contents_known: what the data hold is compared, so they may lie elsewhere.

    Raises:
        UserError: with every key that differs.
    """
    named = {key for word in overrides or () if (key := _key(word))}
    wrong = []
    for key, (before, now) in differences(config, kept).items():
        if key.startswith("trainer.") and key in named:
            log.info("going on with %s=%s instead of %s", key, _shown(now), _shown(before))
        elif key != WHERE or not contents_known:
            wrong.append(f"{key}={_shown(before)}, not {_shown(now)}")
    if wrong:
        raise UserError(
            f"{source} was trained with {'; '.join(wrong)}; repeat what it was trained with to go on exactly, or start "
            f"another run from its weights with train.pretrained_model_path={source}"
        )


def differences(config: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (value in the checkpoint, value now), for all that a continued run must share. A key that one side does
    not know has its default there."""
    from src.config import known_keys

    defaults = known_keys()
    found = {}
    for section, only in CONTINUED.items():
        before, now = _flat(kept.get(section), section), _flat(config.get(section), section)
        for key in sorted(before.keys() | now.keys()):
            if key in FREE or (only is not None and key.partition(".")[2] not in only):
                continue
            default = defaults.get(key)
            if isinstance(default, str) and default.startswith("${") and (key not in before or key not in now):
                continue  # the key is newer than the checkpoint, and its default depends on others
            pair = before.get(key, default), now.get(key, default)
            if not _equal(*pair):
                found[key] = pair
    if "loader.batch_size" in found and _together(kept) == _together(config):
        del found["loader.batch_size"]  # other devices, the same samples in a step
    return found


def same_data(config: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    """Whether two configurations ask for the same data, wherever they lie."""
    return not any(key.startswith("dataset.") and key != WHERE for key in differences(config, kept))


def _together(config: Mapping[str, Any]) -> Any:
    trainer = config.get("trainer", {})
    parts = config["loader"].get("batch_size"), trainer.get("devices"), trainer.get("num_nodes", 1)
    return parts[0] * parts[1] * parts[2] if all(type(part) is int for part in parts) else object()


def _key(word: str) -> str | None:
    """The key of one override, without its ``+`` or ``~``; None for what is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word).key_or_group.replace("/", ".")
    except HydraException:
        return None


def _same_data(config: Mapping[str, Any], kept: Mapping[str, Any], named: Sequence[str]) -> None:
    now, before = (values["dataset"].get("_name_") for values in (config, kept))
    if now != before and not {"dataset", "pipeline", "dataset._name_"} & set(named):
        raise UserError(
            f"the checkpoint was trained on {before}, the experiment is of {now}; leave the experiment out, or choose "
            f"other data with pipeline={now}"
        )


def _copy(source: Any, target: Any, path: Sequence[str]) -> None:
    """Set, or remove, in ``target`` what stands in ``source`` under ``path``."""
    *folders, last = path
    for name in folders:
        source = source.get(name) if isinstance(source, Mapping) else None
        if not isinstance(target.get(name), dict):
            target[name] = {}
        target = target[name]
    if isinstance(source, Mapping) and last in source:
        target[last] = copy.deepcopy(source[last])
    else:
        target.pop(last, None)


def _flat(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: inner for part in value for key, inner in _flat(value[part], f"{name}.{part}").items()}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
