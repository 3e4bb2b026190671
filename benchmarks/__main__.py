"""``python -m benchmarks``: print the tables, write them as CSV and PNG."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sdn.errors import UserError, door

TABLES = ("neuron", "s4d", "step", "growth", "stream")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="which tables (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds: under 2 minutes on two cores")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's own)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder for CSV and PNG")
    return parser.parse_args()


@door
def main() -> None:
    """Run the chosen tables one after another; each is written as soon as it is done."""
    options = _arguments()
    import torch
    from rich.console import Console

    from . import growth, neurons, s4d, step, stream
    from .rows import draw, show, write_csv
    from .timing import hardware

    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; leave --device out to measure the CPU")
    modules = {"neuron": neurons, "s4d": s4d, "step": step, "growth": growth, "stream": stream}
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(hardware(device), time.strftime("%Y-%m-%d"))
    for name in options.tables:
        rows = []
        for row in modules[name].table(device, options.quick):
            rows.append(row)
        show(rows, console)
        write_csv(rows, options.out / f"{name}-{device.type}.csv")
        for group in dict.fromkeys(row.case.split(", ")[-1] for row in rows if row.x):
            mine = [row for row in rows if row.x and row.case.endswith(group)]
            picture = options.out / f"{name}-{group.replace(' + ', '-').replace(' ', '-')}-{device.type}.png"
            draw(mine, picture, f"{name}: {group} ({hardware(device)})", getattr(modules[name], "XLABEL", "L"))
            console.print(f"wrote {picture}")


if __name__ == "__main__":
    sys.exit(main())
