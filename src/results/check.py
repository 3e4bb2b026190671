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
from src.results.facts import ROOT
from src.results.pages import BLOCK, FIGURE, PAGES, files

SECTIONS = ("Results", "Which neuron, and how fast")
"""Of the README: where measured figures stand."""
_NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?|\.\d+)")


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
    known, measured = [], measurements(results)
    for runs in records.values():
        known.append(runs[0]["config"])
        found += [problem for run in runs if (problem := _not_what_was_run(run))]
    for page in pages:
        found += _typed_by_hand(page, known, measured)
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


def _typed_by_hand(page: Path, known: list[Mapping[str, Any]], measured: list[float]) -> Iterator[str]:
    """Figures and commands outside the markers, where results stand: those of benchmarks and cards must be in them."""
    text = page.read_text(encoding="utf-8")
    if page.parent.name != "results":
        found = (re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL) for name in SECTIONS)
        text = "\n".join(match[1] for match in found if match)
    rows: list[str] = []
    for line in [*FIGURE.sub("", BLOCK.sub("", text)).splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
            continue
        for row in rows[2:]:
            if unknown := [number for number in _numbers(row) if not _measured(number, measured)]:
                yield f"{page}: typed by hand and in no record or benchmark: {', '.join(unknown)} in {row[:80]}"
        rows = []
    yield from _commands(page, text, known)


def _commands(page: Path, text: str, known: list[Mapping[str, Any]]) -> Iterator[str]:
    for command in re.findall(r"`(python -m train [^`]*)`", BLOCK.sub("", text)):
        try:
            composed = _compose(command)
        except UserError as error:
            yield f"{page}: `{command}` does not compose: {error}"
            continue
        if not any(not changed(settings(config), composed) for config in known):
            yield f"{page}: `{command}` is the command of no collected run"


def _numbers(row: str) -> list[str]:
    """The numbers of a table's row, of cells that begin with one; the first cell is a label."""
    cells = [cell.strip(" *") for cell in row.strip().strip("|").split("|")[1:]]
    return [number for cell in cells if re.match(r"\.?\d", cell) for number in _NUMBER.findall(cell)]


def _measured(number: str, measured: list[float]) -> bool:
    """Whether a measured value is the printed number, to the digits that are printed."""
    digits = len(number.partition(".")[2])
    value, half = float(number.replace(",", "")), 0.5 * 10**-digits
    return any(abs(found - value) <= half * (1 + 1e-9) for found in measured)


def measurements(results: Path = RESULTS) -> list[float]:
    """Every number in the tables of the benchmarks and in the cards of the shipped SDNs."""
    files = [*sorted((results / "benchmarks").glob("*.csv")), *sorted((ROOT / "sdn" / "pretrained").glob("*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return [float(number.replace(",", "")) for number in re.findall(r"(?<![\w.])\d[\d,]*\.\d+(?:e-?\d+)?|\.\d+", text)]
