"""Records of runs as the repository keeps them: ``results/runs/NAME-sSEED.json``, a line a key, curves as columns."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdn.errors import UserError
from sdn.files import write_text
from src.results.facts import ROOT, config_hash
from src.results.record import FILE, FORMAT

RESULTS = ROOT / "results"
_SHOWS = ("progress", "last")
"""Callbacks without a part in what a run computes."""
_FREE = {"train": ("seed", "overwrite", "peer_timeout"), "dataset": ("seed",)}
"""Keys by section that may differ between runs of one setting."""
_ELSEWHERE = (
    *("tolerance.", "hydra.", "hydra/", "logger.", "wandb.", "train.ckpt=", "trainer.enable_progress_bar="),
    *(f"callbacks.{name}." for name in _SHOWS),
)
"""Beginnings of options that say where a run keeps its things and what it shows, not what it computes."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def read(folder: str | Path) -> dict[str, Any]:
    """The record of a run folder.

    Raises:
        UserError: there is none, it is not one of ours, or the run has not come to its end.
    """
    path = Path(folder)
    path = path if path.is_file() else path / FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {FILE}; name the folder of a run of python -m train")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} is no record of format {FORMAT}")
    if not record["finished"]:
        raise UserError(f"the run in {folder} has not come to its end; let it go on with tolerance.id or train.ckpt")
    if record["command"] is None:
        raise UserError(f"the run in {folder} was not started from the command line, so nobody could repeat it")
    return record


def collect(folder: str | Path, name: str | None = None, results: Path = RESULTS) -> Path:
    """Keep the record of ``folder`` as ``results/runs/NAME-sSEED.json``, with the energies of an evaluation where
    ``python -m src.evaluate`` has been run on it; the path.

    Args:
        name: of the settings; runs that differ only in their seed share it. Default: experiment and a hash.

    Raises:
        UserError: as :func:`read`, or a name that is none.
    """
    record = read(folder)
    kept = portable(record) | evaluated(Path(folder))
    name = name or f"{experiment(kept['command'])}-{settings_hash(kept['config'])[:6]}"
    if not _NAME.fullmatch(name):
        raise UserError(f"a name has small letters, digits, dots and hyphens, not {name!r}")
    path = results / "runs" / f"{name}-s{record['seed']}.json"
    write_text(path, dump({"name": name, **kept}))
    return path


def portable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without what belongs to the machine it was made on: paths, and where the run kept its things."""
    kept = dict(record)
    kept["command"] = repeatable(record["command"])
    kept["interruptions"] = [{k: v for k, v in stop.items() if k != "command"} for stop in record["interruptions"]]
    kept["config"] = without_paths(record["config"])
    kept["config_hash"] = config_hash(kept["config"])
    names = sorted({name for row in record["epochs"] for name in row})
    kept["epochs"] = {name: [row.get(name) for row in record["epochs"]] for name in names}
    return kept


def evaluated(folder: Path) -> dict[str, Any]:
    """``{"evaluation": ...}``, flat numbers of the run's ``evaluation.json`` (joules a sample); empty where there is
    none."""
    path = folder / "evaluation" / "evaluation.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    energy = found["energy"]
    flat = {"samples": found["samples"], "split": found["split"], "memory": energy["memory"]["level"]}
    for form in ("spiking", "dense", "spiking_int8", "dense_int8"):
        for key in ("joules", "joules_with_memory") if energy[form] else ():
            flat[f"{form}_{key}"] = energy[form][key]
    for row in energy["break_even"]:
        for key in ("operations", "with_memory"):
            flat[f"break_even_{row['form']}_{row['twin']}_{key}"] = row[key]
    return {"evaluation": flat}


def facts_of(record: Mapping[str, Any], step: int | None = None, weights: str = "best.ckpt") -> dict[str, Any]:
    """What should travel with the weights of a run: how they were made and what they reach.

    Args:
        record: as :func:`portable` returns it, or with its epochs as rows.
        step: the optimizer step at which the weights were saved; None for the best epoch's.
        weights: the checkpoint's name; test figures are given only if it is the one that was tested.
    """
    rows = record["epochs"]
    if isinstance(rows, Mapping):
        rows = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    row = record["best"] if step is None else next((r for r in rows if r["step"] == step), {})
    tested = record["test"] if record["test"] and record["test"]["weights"] == weights else None
    command = record["command"] and repeatable(record["command"])
    kept = ("commit", "seed", "versions", "hardware", "seconds", "parameters")
    return {
        "command": command,
        **{key: record.get(key) for key in kept},
        "steps": row["step"] if row else step,
        "chosen_by": f"{record['monitor']} (epoch {row['epoch'] + 1})" if row and row == record["best"] else None,
        "figures": {**(row or {}), **(tested["figures"] if tested else {})},
        "firing_rates": record["firing_rates"] if tested else None,
    }


def repeatable(command: str) -> str:
    """The command without options that say where a run keeps its things."""
    words = shlex.split(command)
    return shlex.join(word for word in words if not word.lstrip("+").startswith(_ELSEWHERE))


def experiment(command: str) -> str:
    """``digits`` of ``... experiment=spikingssm/digits ...``; "run" where none is named."""
    found = re.search(r"\bexperiment=(?:\S*/)?([\w.-]+)", command)
    return found[1].lower() if found else "run"


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` without what :func:`src.results.facts.config_hash` leaves out, absolute paths cut to the file."""
    kept = {key: value for key, value in config.items() if key not in ("tolerance", "logger", "wandb")}
    kept["train"] = {key: value for key, value in config["train"].items() if key != "ckpt"}
    return _cut(kept)


def _cut(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` without its seeds, what a run shows and how it is watched over: equal for runs whose figures may be
    averaged."""
    kept = dict(without_paths(config))
    kept["callbacks"] = {key: value for key, value in (kept.get("callbacks") or {}).items() if key not in _SHOWS}
    for section, free in _FREE.items():
        kept[section] = {key: value for key, value in kept[section].items() if key not in free}
    kept["train"].setdefault("accept_changed_data", False)  # records that are older than the key
    return kept


def settings_hash(config: Mapping[str, Any]) -> str:
    """The hash of :func:`settings`."""
    return config_hash(settings(config))


def dump(record: Mapping[str, Any]) -> str:
    """JSON with a line a key, and a line a curve."""
    lines = []
    for key, value in record.items():
        if key == "epochs":
            inner = [f"  {json.dumps(name)}: {json.dumps(column)}" for name, column in value.items()]
            lines.append(' "epochs": {\n' + ",\n".join(inner) + "\n }")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load(results: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """All kept records, by name, each list in the order of the seeds.

    Raises:
        UserError: a file that is no record, or whose content does not fit its name or its own hash.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((results / "runs").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            named, hashed = f"{record['name']}-s{record['seed']}", record["config_hash"]
            right = path.stem == named and hashed == config_hash(record["config"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__} {error}") from error
        if not right:
            raise UserError(f"{path} was changed after python -m src.results wrote it: name or configuration")
        found.setdefault(record["name"], []).append(record)
    for name, records in found.items():
        records.sort(key=lambda record: record["seed"])
        for other in records[1:]:
            if differs := difference(settings(records[0]["config"]), settings(other["config"])):
                seeds = f"{records[0]['seed']} and {other['seed']}"
                raise UserError(f"the runs {name} of seeds {seeds} differ in {', '.join(differs)}; give them two names")
    return found


def difference(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys in which two nested configurations differ."""
    found: list[str] = []
    for key in sorted(a.keys() | b.keys()):
        one, other, name = a.get(key), b.get(key), f"{prefix}{key}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += difference(one, other, f"{name}.")
        elif one != other:
            found.append(name)
    return found
