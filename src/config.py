"""The configuration: what may stand in it, and Hydra's complaints in one sentence."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdn import named
from sdn.errors import UserError
from src.config_check import check_sections, check_values
from src.inherit import Composed
from src.paths import resolve
from src.registry import REGISTRY, check_arguments, lookup, suggestion

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
DEFAULT = "digits"
"""The data set of the default experiment."""
GROUPS = ("dataset", "task", "encoder", "decoder", "model", "loader", "optimizer", "scheduler", "trainer", "callbacks")


def register_resolvers() -> None:
    """``${choose:condition,a,b}`` is a if the condition is true, else b (also where it is null);
    ``${match:value,word,a,b}`` is a if the value is that word, else b."""
    OmegaConf.register_new_resolver("choose", lambda condition, a, b: a if condition else b, replace=True)
    OmegaConf.register_new_resolver("match", lambda value, word, a, b: a if value == word else b, replace=True)


def compose(*overrides: str) -> dict[str, Any]:
    """What ``python -m train *overrides`` would run, as plain data: for notebooks, tests and other programs.

    Raises:
        UserError: as on the command line.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    register_resolvers()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return Composed(plain(compose("config", without_other_experiment(overrides)), overrides), overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error) from error


def without_other_experiment(words: Sequence[str]) -> list[str]:
    """The words of a command; where they choose a pipeline and no experiment, the default experiment is left out, whose
    model and training are made for other data. A data set chosen alone stands for the pipeline of its name."""
    names, words = _keys(words), list(words)
    if "experiment" in names:
        return words
    if "pipeline" not in names and "dataset" in names and "train.ckpt" not in names:  # a checkpoint brings the rest
        place = names.index("dataset")
        chosen = words[place].partition("=")[2].removeprefix("choice(").removesuffix(")").split(",")
        known = {path.stem for path in (CONFIGS / "pipeline").glob("*.yaml")}
        if set(chosen) <= known and chosen != [DEFAULT]:
            words[place] = f"pipeline={','.join(chosen)}"
            names[place] = "pipeline"
    if "pipeline" not in names:
        return words
    place = names.index("pipeline") + 1
    return [*words[:place], "experiment=none", *words[place:]]


def _keys(words: Sequence[str]) -> list[str]:
    """The key of each word ``key=value`` of a command."""
    return [word.partition("=")[0].lstrip("+~") for word in words]


def plain(config: DictConfig, words: Sequence[str] = ()) -> dict[str, Any]:
    """The composed configuration as nested dicts and lists, interpolations filled in and checked.

    Keys that begin with two underscores serve interpolation and are left out; so are those that an experiment has for
    a part in whose place ``words``, what the user typed, put another.

    Raises:
        UserError: an interpolation cannot be filled in, or a key is not known.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        if (key := getattr(error, "full_key", None) or "").endswith("_name_"):
            raise UserError(f"name the class of your own: {key}=package.module.Class") from error
        if key:
            raise UserError(f"{key} has no value; give {key}=...") from error
        raise UserError(f"the configuration is incomplete: {_first_line(error)}") from error
    values = _strip(values)
    named.allow(*named.dotted_names(values))  # what the user's own configuration names is the user's choice
    check_sections(values)
    for group in GROUPS:
        _drop_keys_of_the_replaced(group, values.get(group), _keys(words))
    check(values)
    layer = values["model"].get("layer") or {}
    if layer.get("sdn"):
        layer["sdn"] = str(resolve(layer["sdn"]))  # the run changes into its own folder
    for key in ("path", "data_dir"):
        value = (values["dataset"] or {}).get(key)
        if isinstance(value, str) and resolve(value).exists():  # so that a checkpoint finds them from any folder
            values["dataset"][key] = str(resolve(value))
    return values


def check(config: Mapping[str, Any]) -> None:
    """Refuse keys that nothing reads, and text where a number or true/false belongs.

    Raises:
        UserError: with the nearest key there is.
    """
    root = _read(CONFIGS / "config.yaml")
    sections = {name: set(value) for name, value in root.items() if isinstance(value, dict) and name != "hydra"}
    known = set(root) - {"defaults", "hydra"} | set(GROUPS)
    for key in config:
        if key not in known:
            raise UserError(f"unknown key {key}{suggestion(key, known)}")
    for section, keys in sections.items():
        for key in config[section] or {}:
            if key not in keys:
                raise UserError(f"unknown key {section}.{key}{suggestion(key, keys)}")
    for group in GROUPS:
        if group not in config:
            raise UserError(f"the configuration has no {group}; choose one with {group}=NAME")
        part = config[group]
        if group in REGISTRY and part and part.get("_name_") is not None:
            check_arguments(group, lookup(group, part["_name_"]), [key for key in part if key != "_name_"])
    for name, options in config["callbacks"].items():
        options = dict(options or {})
        check_arguments(f"callbacks.{name}", lookup("callback", options.pop("_name_", name)), options)
    _refuse_targets_a_step(config)
    _check_types(config)
    check_values(config)


def _refuse_targets_a_step(config: Mapping[str, Any]) -> None:
    """Data that have one target a sequence, where one a step is asked for."""
    asked = [(config[group] or {}).get("_name_") for group in ("task", "decoder")]
    name = (config["dataset"] or {}).get("_name_")
    if name is not None and "per_step" in asked and (said := getattr(lookup("dataset", name), "one_target", None)):
        raise UserError(said)


def _check_types(config: Mapping[str, Any]) -> None:
    defaults = known_keys()
    for key, value in _flatten(config).items():
        default = defaults.get(key)
        if isinstance(value, str) and isinstance(default, (bool, int, float)) and not key.startswith("trainer."):
            what = "true or false" if isinstance(default, bool) else "a number"
            raise UserError(f"{key} must be {what}, not {value!r}")


@functools.cache
def known_keys() -> dict[str, Any]:
    """Every full key of the shipped configuration (``model.layer.d_state``) with a default value."""
    keys: dict[str, Any] = {}
    for path in sorted(CONFIGS.rglob("*.yaml")):
        prefix = ".".join(path.parent.relative_to(CONFIGS).parts)
        if "@package _global_" in path.read_text(encoding="utf-8"):
            prefix = ""
        body = {key: value for key, value in _read(path).items() if key != "defaults"}
        for key, value in _flatten(body, prefix).items():
            keys.setdefault(key, value)
            if keys[key] is None:
                keys[key] = value
    return keys


def explain(error: Exception) -> UserError:
    """A complaint of Hydra or OmegaConf about the command line as one sentence."""
    text = str(error)
    if type(error) is ValueError:
        if "Config group override must be a string" not in text:
            raise error  # no complaint about the command line
        return UserError(f"a whole group cannot be set to null or a list; choose one of {', '.join(GROUPS)} with =NAME")
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        known = known_keys()
        if key in known:
            return UserError(f"{key} is no key of what was chosen{_belongs_to(key)}; see --cfg job")
        close = difflib.get_close_matches(key, known, 1) or [
            name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]
        ]
        groups = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*") if path.is_dir()}
        close = difflib.get_close_matches(key, groups, 1) if "." not in key and not close else close
        if "." in key and key.partition(".")[0] in REGISTRY and not (close and "." in close[0]):
            return UserError(f"unknown key {key}; see --cfg job, and add a key that a class of yours takes as +{key}=")
        return UserError(f"unknown key {key}" + (f"; did you mean {close[0]!r}?" if close else "; see --cfg job"))
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, name = match[1].rpartition("/")
        top = group.partition("/")[0]
        options = [str(p.relative_to(CONFIGS / top).with_suffix("")) for p in (CONFIGS / top).rglob("*.yaml")]
        wanted = match[1][len(top) + 1 :] if top else name
        return UserError(f"there is no {top or 'configuration'} {wanted!r}{_nearest(wanted, options)}")
    return UserError(f"cannot read the command line or configuration: {_first_line(error)}")


def _belongs_to(key: str) -> str:
    """``; it is one of dataset=arrays or text``: the choices of a group that have a key."""
    group, _, rest = key.partition(".")
    names = [path.stem for path in sorted((CONFIGS / group).glob("*.yaml")) if rest in _flatten(_read(path))]
    return f"; it is one of {group}={' or '.join(names)}" if names else ""


def _nearest(name: str, options: list[str]) -> str:
    for option in sorted(options):
        if option.rpartition("/")[2] == name:
            return f"; did you mean {option!r}?"
    return suggestion(name, options)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split()).rstrip(".")


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= {name: None} | _flatten(value, name)
        else:
            flat[name] = value
    return flat


def _drop_keys_of_the_replaced(group: str, part: dict[str, Any] | None, typed: Sequence[str]) -> None:
    """Where the user chose another part (``scheduler=plateau``, ``scheduler._name_=package.module.Class``), remove the
    keys that a shipped one or the experiment had brought and the part does not take; never one that the user typed."""
    name = part.get("_name_") if part else None
    if group not in REGISTRY or not part or not isinstance(name, str):
        return
    replaced = bool({group, f"{group}._name_"} & set(typed))
    if not named.is_dotted(name) and (not replaced or name not in REGISTRY[group]):
        return
    taken = inspect.signature(lookup(group, part["_name_"])).parameters.values()
    names = {p.name for p in taken}
    if any(p.kind is p.VAR_KEYWORD for p in taken):
        names |= set(part)
    shipped = [_read(path) for path in (CONFIGS / group).glob("*.yaml")]
    for key in set(part) - names - {"_name_"}:
        known = [other[key] for other in shipped if key in other]
        brought = replaced or any(value == part[key] or "${" in str(value) for value in known)
        if known and brought and f"{group}.{key}" not in typed:
            del part[key]


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strip(v) for k, v in value.items() if not (str(k).startswith("__"))}
    return [_strip(v) for v in value] if isinstance(value, list) else value
