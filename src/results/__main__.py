"""``python -m src.results``: from the records of runs to every printed figure.

``python -m src.results outputs/.../RUN --name qtdb-small`` keeps the record of a finished run as
``results/runs/qtdb-small-sSEED.json``; without arguments the tables, pictures and pages are made anew from all records;
``--check`` says what is printed but cannot be believed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sdn.errors import UserError, door


@door
def main(argv: list[str] | None = None) -> int:
    """Collect, rebuild or check; the exit code is 1 where the check finds something."""
    parser = argparse.ArgumentParser(prog="python -m src.results", description=__doc__)
    parser.add_argument("runs", nargs="*", help="folders of finished runs, or of a sweep")
    parser.add_argument("--name", default=None, help="of the settings; runs that differ in their seed share it")
    parser.add_argument("--check", action="store_true", help="change nothing, say what is wrong")
    options = parser.parse_args(argv)
    if options.check and options.runs:
        raise UserError("--check looks at what was collected; give it no run folders")
    if options.check:
        from src.results.check import problems

        found = problems()
        print("\n".join(found) or "every printed figure is in a record, every command gives what was run")
        return int(bool(found))
    from src.results.collect import collect
    from src.results.pages import rebuild

    for folder in options.runs:
        for run in _runs(Path(folder)):
            print(f"kept {collect(run, options.name)}")
    for path in rebuild():
        print(f"wrote {path}")
    return 0


def _runs(folder: Path) -> list[Path]:
    """The folder itself, or the runs of a sweep in it."""
    if (folder / "record.json").is_file() or not folder.is_dir():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/record.json")) or [folder]


if __name__ == "__main__":
    sys.exit(main())
