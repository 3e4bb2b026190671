"""``python -m benchmarks``: print the tables; write each as CSV, with machine and versions as JSON, and as PNG."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sdn.errors import UserError, door

TABLES = {
    "neuron": "neurons",
    "s4d": "s4d",
    "step": "step",
    "growth": "growth",
    "stream": "stream",
    "neuromorphic": "neuromorphic",
    "exact": "exact",
    "busy": "busy",
}
"""Tables and the modules that make them."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = [name for name in TABLES if name not in ("exact", "busy")]
    help = "which tables (default: all but exact, and busy, which brings busy processes of its own)"
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=usual, help=help)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds: a few minutes on two cores")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's own)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder for CSV, JSON and PNG")
    parser.add_argument("--busy-anyway", action="store_true", help="write into results/ beside other work too")
    return parser.parse_args(argv)


@door
def main(argv: list[str] | None = None) -> None:
    """Run the chosen tables one after another; each is written as soon as it is done."""
    options = _arguments(argv)
    import importlib
    import itertools

    import torch
    from rich.console import Console

    from .conditions import conditions, others_cores, refuse_busy
    from .rows import draw, show, write_conditions, write_csv
    from .timing import hardware

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; leave --device out to measure the CPU")
    if options.threads:
        torch.set_num_threads(options.threads)
    others = others_cores()
    refuse_busy(options.out, options.busy_anyway, others)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(hardware(device), time.strftime("%Y-%m-%d"), f"{others:.1f} cores taken by other work")
    for name in options.tables:
        module = importlib.import_module(f".{TABLES[name]}", __package__)
        found, started = conditions(device, others), time.perf_counter()
        rows = []
        for _, case in itertools.groupby(module.table(device, options.quick), lambda row: row.case):
            rows += (mine := list(case))
            show(mine, console)
        if not rows:
            continue
        write_csv(rows, options.out / f"{name}-{device.type}.csv")
        found["seconds"] = round(time.perf_counter() - started)
        write_conditions(found, options.out / f"{name}-{device.type}.json")
        for group in dict.fromkeys(row.group for row in rows if row.x and row.group):
            mine = [row for row in rows if row.group == group]
            slug = group.replace(" + ", "-").replace(" ", "-")
            picture = options.out / f"{name}-{slug}-{device.type}.png"
            xlabel = getattr(module, "XLABELS", {}).get(group, "L")
            draw(mine, picture, f"{name}: {group} ({hardware(device)})", xlabel)
            console.print(f"wrote {picture}")


if __name__ == "__main__":
    sys.exit(main())
