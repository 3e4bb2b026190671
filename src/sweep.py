"""The end of a sweep: one table of what every job was and found, printed and kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from sdn.files import write_text
from src.paths import resolve

TABLE = "results.csv"


class SweepTable(Callback):
    """Write ``results.csv`` into the folder of the sweep and print it when the last job is done."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        table(resolve(OmegaConf.select(config, "hydra.sweep.dir")))


def table(folder: Path) -> Path | None:
    """``folder/results.csv`` from the jobs in the folders below that have finished; None if there are none.

    The columns are the job, the keys in which the jobs differ, the monitored figure's best value, and the figures of
    the test.
    """
    rows = [_row(path.parent) for path in sorted(folder.rglob("results.json"), key=_order)]
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    same = {n for n in names if "=" in n and len({row.get(n) for row in rows}) == 1 and len(rows) > 1}
    names = [name for name in names if name not in same]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writerow({name: name.rstrip("=") for name in names})
    writer.writerows(rows)
    write_text(folder / TABLE, text.getvalue())
    cells = list(csv.reader(io.StringIO(text.getvalue())))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"wrote {folder / TABLE}")
    return folder / TABLE


def _row(job: Path) -> dict[str, str]:
    found = json.loads((job / "results.json").read_text(encoding="utf-8"))
    row = {"job": job.name, **_overrides(job)}
    row |= {f"best {found['monitor']}": _short(found["best"])}
    return row | {name: _short(found[name]) for name in found if name.startswith("test/") and "/layer_" not in name}


def _overrides(job: Path) -> dict[str, str]:
    """``key=`` -> value of what was typed for this job."""
    record = job / ".hydra/overrides.yaml"
    words = OmegaConf.to_container(OmegaConf.load(record)) if record.is_file() else []
    parsed = OverridesParser.create().parse_overrides([str(word) for word in words])
    return {f"{one.key_or_group}=": one.get_value_element_as_str() for one in parsed if not one.is_delete()}


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _order(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name), "") if name.isdigit() else (10**9, str(path))
