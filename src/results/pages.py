"""What is printed between markers in ``README.md`` and ``results/README.md`` comes from records.

``<!-- results: NAME -->`` ... ``<!-- end -->`` holds the table NAME of ``results/tables.yaml``. Within a line,
``<!-- result: RUNS FIGURE xSCALE .DIGITS -->98.0<!-- end -->`` holds one figure, ``<!-- measured: NAME -->`` ...
``<!-- end -->`` command, machine and date of a benchmark. What no benchmark measured yet stays as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdn.errors import UserError
from sdn.files import write_text
from src.results import curves, dots, measured
from src.results.collect import RESULTS, load
from src.results.facts import ROOT
from src.results.tables import Records, as_csv, cells, markdown, read_tables, spread, value

PAGES = (ROOT / "README.md", RESULTS / "README.md")
BLOCK = re.compile(r"(<!-- results: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(<!-- result: (\S+) (\S+)(?: x([\d.]+))?(?: \.(\d+))? -->)[^\n]*?(<!-- end -->)")

MEASURED = re.compile(r"(<!-- measured: (\S+) -->)[^\n]*?(<!-- end -->)")


def render(text: str, tables: Mapping[str, Any], records: Records, results: Path = RESULTS) -> str:
    """``text`` with everything between its markers made anew.

    Raises:
        UserError: a marker names a table or runs that do not exist.
    """

    def table(match: re.Match[str]) -> str:
        if match[2] not in tables:
            raise UserError(f"there is no table {match[2]!r} in results/tables.yaml; there are {', '.join(tables)}")
        if not tables[match[2]]["rows"]:
            return match[0]
        heads, rows = cells(tables[match[2]], records)
        return f"{match[1]}{markdown(heads, rows, tables[match[2]]['columns'])}\n{match[3]}"

    def figure(match: re.Match[str]) -> str:
        if match[2] not in records:
            raise UserError(f"no run {match[2]!r} was collected; there are {', '.join(records) or 'none'}")
        values = [value(run, match[3]) * float(match[4] or 1) for run in records[match[2]]]
        return match[1] + spread(values, int(match[5] or 2)) + match[6]

    def conditions(match: re.Match[str]) -> str:
        return match[1] + (found + match[3]) if (found := measured.conditions(match[2], results)) else match[0]

    return MEASURED.sub(conditions, FIGURE.sub(figure, BLOCK.sub(table, text)))


def files(results: Path = RESULTS, pages: tuple[Path, ...] = PAGES) -> dict[Path, str]:
    """Every text file that follows from the records: CSV tables and pages, by path, as they should be."""
    tables, records = read_tables(results), load(results)
    made = {
        results / "tables" / f"{name}.csv": as_csv(*cells(table, records))
        for name, table in tables.items()
        if table["rows"]
    }
    return made | {page: render(page.read_text(encoding="utf-8"), tables, records, results) for page in pages}


def rebuild(results: Path = RESULTS, pages: tuple[Path, ...] = PAGES) -> list[Path]:
    """Write tables, pictures and pages; the paths that changed or are pictures."""
    changed = []
    for path, text in files(results, pages).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(path)
    records = load(results)
    for name, table in read_tables(results).items():
        for kind, picture in (("curve", curves), ("dots", dots)):
            if table.get(kind) and table["rows"]:
                path = results / "tables" / f"{name}.png"
                picture.draw(path, table, records)
                changed.append(path)
    return changed
