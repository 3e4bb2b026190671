"""Whether everything printed can be believed: figures from records, commands that give what was run."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdn.errors import UserError
from src.results.collect import RESULTS, load, settings
from src.results.pages import BLOCK, FIGURE, PAGES, files

_PERCENT = re.compile(r"\d[\d.,]* ?%")


def problems(results: Path = RESULTS, pages: tuple[Path, ...] = PAGES) -> list[str]:
    """What is wrong, a sentence each; empty where all is well."""
    try:
        made, records = files(results, pages), load(results)
    except UserError as error:
        return [str(error)]
    found = [
        f"{path} is not what the records say; run python -m src.results"
        for path, text in made.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    known = []
    for runs in records.values():
        known.append(runs[0]["config"])
        found += [problem for run in runs if (problem := _not_what_was_run(run))]
    for page in pages:
        found += _typed_by_hand(page, known)
    return found


def _not_what_was_run(run: Mapping[str, Any]) -> str | None:
    what = f"the command of {run['name']}, seed {run['seed']},"
    try:
        composed = _compose(run["command"])
    except UserError as error:
        return f"{what} does not compose: {error}"
    if differs := changed(settings(run["config"]), composed):
        return f"{what} gives another configuration than was run: {', '.join(differs)}"
    seed = re.findall(r"\btrain\.seed=(\S+)", run["command"])
    if seed and int(seed[-1]) != run["seed"]:
        return f"{what} names another seed"
    return None


@functools.cache
def _composed(words: tuple[str, ...]) -> str:
    from src.config import compose

    return json.dumps(settings(compose(*words)))


def _compose(command: str) -> dict[str, Any]:
    """The settings that a printed command gives; its seed does not matter."""
    words = shlex.split(command)
    if words[:3] != ["python", "-m", "train"]:
        raise UserError("it does not begin with python -m train")
    return json.loads(_composed(tuple(w for w in words[3:] if not w.startswith(("train.seed=", "dataset.seed=")))))


def changed(run: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys of the configuration ``run`` with another value ``now``, or without one where it was not off.

    Keys that did not exist when the run was made are no difference: their defaults keep what was.
    """
    found: list[str] = []
    for key, value in run.items():
        name = f"{prefix}{key}"
        if key not in now:
            found += [name] if value else []
        elif isinstance(value, Mapping) and isinstance(now[key], Mapping):
            found += changed(value, now[key], f"{name}.")
        elif value != now[key]:
            found.append(f"{name} ({value} was run, {now[key]} is printed)")
    return found


def _typed_by_hand(page: Path, known: list[Mapping[str, Any]]) -> Iterator[str]:
    """Figures and commands of learning outside the markers, where results stand."""
    text = page.read_text(encoding="utf-8")
    if page.parent.name != "results":
        at = re.search(r"^## Results\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        text = at[1] if at else ""
    text = FIGURE.sub("", BLOCK.sub("", text))
    for line in text.splitlines():
        if line.startswith("|") and _PERCENT.search(line):
            yield f"{page}: a figure stands outside the markers, typed by hand: {line[:80]}"
        for command in re.findall(r"`(python -m train [^`]*)`", line):
            try:
                composed = _compose(command)
            except UserError as error:
                yield f"{page}: `{command}` does not compose: {error}"
                continue
            if not any(not changed(settings(config), composed) for config in known):
                yield f"{page}: `{command}` is the command of no collected run"
