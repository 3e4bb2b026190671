"""Tables from what benchmarks measured, ``results/benchmarks/NAME.csv`` and ``NAME.json``.

A table of ``results/tables.yaml`` with ``benchmark: NAME`` has no rows of its own. It prints a line a case, or with
``by: name`` a line a candidate, of those whose ``group`` is the table's and whose case matches ``cases``. A column
shows ``case``, ``name`` or any other word of the file, or ``CANDIDATE/WORD`` (with ``by: name``, ``CASE/WORD``), with
``scale`` and ``digits``. ``labels`` says how a name is printed. What was not measured stays as it is on the page.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, str]


def resolve(table: Mapping[str, Any], results: Path) -> dict[str, Any]:
    """The same table with rows of printed words, as :func:`src.results.tables.cells` takes them."""
    by = table.get("by", "case")
    lines: dict[str, dict[str, Row]] = {}
    for row in _rows(table, results):
        lines.setdefault(row[by].strip(), {})[row["name" if by == "case" else "case"].strip()] = row
    columns = [
        {"head": c["head"], "show": f"column {i}", "right": c["show"] != by} for i, c in enumerate(table["columns"])
    ]
    rows = [
        {f"column {i}": _word(column, line, table.get("labels", {})) for i, column in enumerate(table["columns"])}
        for line in lines.values()
    ]
    return {"columns": columns, "rows": rows}


def _rows(table: Mapping[str, Any], results: Path) -> list[Row]:
    path = results / "benchmarks" / f"{table['benchmark']}.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    group, cases = table.get("group"), re.compile(table.get("cases", ""))
    return [row for row in rows if group in (None, row.get("group")) and cases.search(row["case"])]


def _word(column: Mapping[str, Any], line: Mapping[str, Row], labels: Mapping[str, str]) -> str:
    which, _, word = column["show"].rpartition("/")
    row = line.get(which) if which else next(iter(line.values()))
    found = (row or {}).get(word) or ""
    try:
        number = float(found) * column.get("scale", 1)
    except ValueError:
        return labels.get(found.strip(), found.strip())
    if "digits" in column:
        return f"{number:,.{column['digits']}f}"
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def conditions(name: str, results: Path) -> str | None:
    """Command, machine and date of a benchmark in one line; None if none was kept."""
    path = results / "benchmarks" / f"{name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    cores = f"{found['threads']} of {found['cores']} cores"
    machine = f"{found['gpu'] or found['processor']}, {cores}, load {found['load_at_start']:.1f} at the start"
    versions = ", ".join(f"{key} {value}" for key, value in found["versions"].items() if key in _SHOWN)
    return f"`{found['command']}`, {machine}, {versions}, {found['date'].split()[0]}"


_SHOWN = ("torch", "numba", "onnxruntime", "spikingjelly", "snntorch", "norse")
