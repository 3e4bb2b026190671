"""Tables from records, as ``results/tables.yaml`` describes them.

A table has a name, ``columns`` and ``rows``. A column has a ``head`` and says what to ``show``:

====================  ===============================================================================================
``test/accuracy``     any figure of the test of the best weights, or of the best epoch (``val/...``, ``train/...``):
                      mean ± standard deviation over the seeds; with ``scale`` (100 for percent) and ``digits``
``firing_rate``       the mean rate of ``firing_rates``, likewise
``parameters``        their number; ``steps`` and ``epochs`` of the run
``minutes``,``hours`` of one run, the mean over the seeds; ``step_ms``: processor time of the main process a step
``evaluation/KEY``    of ``python -m src.evaluate``, if it was run before the run was collected, such as
                      ``evaluation/spiking_joules_with_memory`` (with ``scale`` 1e6: microjoules a sample)
``seeds``             which
``command``           of the first seed
any other word        what the row says under that word: a label, a rival's figure with its source
====================  ===============================================================================================

A word of the row in braces is put in: ``evaluation/spiking_{key}`` with ``key: joules`` in the row.
Tables with ``benchmark`` instead of rows are explained in :mod:`src.results.measured`.
A row names its ``runs``, the name under which records were collected; a row without runs may hold words only. A row
with ``mean_of``, a list of such names, shows the mean over them seed by seed, and of that mean ± deviation over seeds.

A picture beside the table: ``curve``, a figure against the epoch (:mod:`src.results.curves`), or ``dots``, a list of
figures of the finished runs, a panel each (:mod:`src.results.dots`).
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sdn.errors import UserError
from src.results import measured
from src.results.collect import RESULTS

Records = Mapping[str, Sequence[Mapping[str, Any]]]
_NUMBERS = ("parameters", "steps", "epochs", "minutes", "hours", "step_ms", "seeds", "firing_rate")


def read_tables(results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The tables of ``results/tables.yaml`` by name.

    Raises:
        UserError: the file cannot be read, a table lacks columns or rows, or asks for two pictures.
    """
    path = results / "tables.yaml"
    try:
        tables = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict) or not table.get("columns") or not {"rows", "benchmark"} & table.keys():
            raise UserError(f"{path}: the table {name} needs columns and rows, or a benchmark")
        if {"curve", "dots"} <= table.keys():
            raise UserError(f"{path}: the table {name} has one picture; give it curve or dots, not both")
        for column in table["columns"]:
            if not isinstance(column, dict) or not {"head", "show"} <= column.keys():
                raise UserError(f"{path}: a column of {name} needs head and show, not {column}")
    return {name: measured.resolve(table, results) if "benchmark" in table else table for name, table in tables.items()}


def cells(table: Mapping[str, Any], records: Records) -> tuple[list[str], list[list[str]]]:
    """Heads and rows as printed.

    Raises:
        UserError: a row names runs that were not collected, a figure they do not have, or sets of other seeds.
    """
    rows = []
    for row in table["rows"] or []:
        by_seed = _by_seed(row, records)
        rows.append([_cell(column, row, by_seed) for column in table["columns"]])
    return [column["head"] for column in table["columns"]], rows


def _by_seed(row: Mapping[str, Any], records: Records) -> list[tuple[Mapping[str, Any], ...]]:
    names = row.get("mean_of") or ([row["runs"]] if "runs" in row else [])
    for name in names:
        if name not in records:
            raise UserError(f"no run {name!r} was collected; there are {', '.join(records) or 'none'}")
        if (seeds := [r["seed"] for r in records[name]]) != [r["seed"] for r in records[names[0]]]:
            raise UserError(f"a mean over sets needs the same seeds of each; {name} has {seeds}")
    return list(zip(*(records[name] for name in names), strict=True))


def _cell(column: Mapping[str, Any], row: Mapping[str, Any], by_seed: Sequence[tuple[Mapping[str, Any], ...]]) -> str:
    show = column["show"].format_map(row)
    if "/" not in show and show not in (*_NUMBERS, "command"):
        return str(row.get(show, ""))
    if not by_seed or (len(by_seed[0]) > 1 and show in ("command", "parameters", "steps", "epochs")):
        return ""  # of several sets there is not one
    runs = [of_seed[0] for of_seed in by_seed]
    first = runs[0]
    if show == "command":
        return f"`{first['command']}`"
    if show == "seeds":
        return ", ".join(str(run["seed"]) for run in runs)
    if show == "parameters":
        return f"{first['parameters']['total']:,}"
    if show in ("steps", "epochs"):
        return f"{max(first['epochs']['step']):,}" if show == "steps" else str(max(first["epochs"]["epoch"]) + 1)
    values = [statistics.fmean(value(run, show) for run in of_seed) for of_seed in by_seed]
    digits = column.get("digits", 2)
    return spread(
        [v * column.get("scale", 1) for v in values], digits, deviation=show not in ("minutes", "hours", "step_ms")
    )


def value(run: Mapping[str, Any], figure: str) -> float:
    """A figure of one record: of its test where it has it, else of its best epoch.

    Raises:
        UserError: the record has no such figure.
    """
    if figure in ("minutes", "hours"):
        return run["seconds"] / {"minutes": 60, "hours": 3600}[figure]
    if figure == "step_ms":
        return 1000 * run["cpu_seconds"] / max(run["epochs"]["step"])
    if figure.startswith("evaluation/"):
        found = run.get("evaluation", {}).get(figure.partition("/")[2])
    elif figure == "firing_rate":
        found = (run["firing_rates"] or {}).get("mean")
    else:
        places = ((run["test"] or {}).get("figures", {}), run["best"] or {})
        found = next((place[figure] for place in places if place.get(figure) is not None), None)
    if found is None:
        raise UserError(f"the run {run['name']} of seed {run['seed']} has no figure {figure}")
    return float(found)


def spread(values: Sequence[float], digits: int = 2, deviation: bool = True) -> str:
    """``85.37 ± 0.73`` (sample deviation), or one value alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if deviation and len(values) > 1 else mean


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown; columns that show numbers stand right."""
    right = [column.get("right", "/" in column["show"] or column["show"] in _NUMBERS) for column in columns]
    lines = [heads, ["---:" if r else "---" for r in right], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_csv(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()
