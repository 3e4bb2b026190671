"""``python -m src.evaluate CKPT``: figures, sparsity, energy and, where there is one, the other kind of neuron.

Writes ``evaluation.json`` for machines and ``evaluation.html`` for people, both into ``--out`` (by default beside the
checkpoint's folder).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sdn.errors import UserError, door
from sdn.named import Allow


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.evaluate", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint of python -m train, e.g. outputs/.../checkpoints/best.ckpt")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--limit", type=int, default=None, help="evaluate this many samples only, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--device", default="cpu", help="where to run: cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--batch-size", type=int, default=None, help="samples a batch (default: as in training)")
    parser.add_argument("--out", type=Path, default=None, help="folder for the report")
    parser.add_argument("--mac-pj", type=float, default=4.6, help="energy of a multiply-accumulate in picojoules")
    parser.add_argument("--ac-pj", type=float, default=0.9, help="energy of an accumulate in picojoules")
    parser.add_argument("--sigmoid-macs", type=float, default=4.0, help="what a sigmoid costs, in MACs")
    parser.add_argument("--memory", choices=("8KB", "32KB", "1MB", "DRAM"), default=None,
                        help="where weights and state lie (default: the smallest that holds them)")  # fmt: skip
    parser.add_argument("--allow", action=Allow)
    return parser.parse_args(argv)


@door
def main(argv: list[str] | None = None) -> None:
    """Measure one checkpoint and write its report."""
    options = _arguments(argv)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit counts samples and must be at least 1, not {options.limit}")
    from sdn.device import check_device
    from src.evaluation.activity import measure
    from src.evaluation.energy import Constants
    from src.evaluation.summary import summary
    from src.restore import batches, restore

    device = check_device(options.device)
    constants = Constants(options.mac_pj, options.ac_pj, options.sigmoid_macs)
    module, data = restore(options.checkpoint)
    chosen = batches(module, data, options.split, options.batch_size, options.limit, options.seed)
    activity = measure(module.to(device), chosen, options.limit)
    result = summary(module, activity, constants, options.memory)
    result |= {"checkpoint": str(options.checkpoint), "split": options.split}
    out = options.out or Path(options.checkpoint).resolve().parent.parent / "evaluation"
    _write(module, activity, result, out)
    _print(result)
    print(f"wrote {out / 'evaluation.json'} and {out / 'evaluation.html'}")


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result["figures"].items())
    console.print(f"{result['samples']} samples: {figures}; firing rate {result['firing_rate']:.2%}")
    surrogate = result["surrogate"]
    compared = ("SDN wrong/true", "no memory wrong/true") if surrogate["compared_with"] else ()
    table = Table("layer", "firing rate", "dead", "saturated", *compared)
    for i, layer in enumerate(result["layers"]):
        errors = ("wrong_over_true", "no_memory_wrong_over_true")
        table.add_row(
            str(i),
            f"{layer['firing_rate']:.2%}",
            f"{layer['dead']} of {layer['neurons']}",
            str(layer["saturated"]),
            *([f"{surrogate['layers'][i][name]:.5f}" for name in errors] if compared else []),
        )
    console.print(table)
    if not compared:
        console.print(f"no comparison with another kind of neuron: {surrogate['why_not']}")
    _print_energy(console, result)


def _print_energy(console: Any, result: dict[str, Any]) -> None:
    from rich.table import Table

    from src.evaluation.compare import FORMS, MEANING
    from src.evaluation.report.evaluation import NAMES, rate_words

    energy = result["energy"]
    level = energy["memory"]["level"]
    table = Table("energy a sample", "operations, µJ", f"with memory ({level}), µJ", "kB moved", highlight=True)
    for form in FORMS:
        if counted := energy[form]:
            joules = (f"{counted[key] * 1e6:.4g}" for key in ("joules", "joules_with_memory"))
            table.add_row(NAMES[form], *joules, f"{counted['bytes'] / 1e3:,.0f}")
    console.print(table)
    for row in energy["break_even"]:
        counts = f"{rate_words(row['operations'])} by operations, {rate_words(row['with_memory'])} with memory"
        console.print(f"break-even firing rate of {NAMES[row['form']]} against {NAMES[row['twin']]}: {counts}")
    if paper := result["paper_count"]:
        console.print(
            f"the paper's narrower count, the mix alone: {paper['spiking_joules'] * 1e6:.4g} µJ against "
            f"{paper['dense_joules'] * 1e6:.4g} µJ"
        )
    console.print(" ".join(MEANING), style="dim")


def _write(module: Any, activity: Any, result: dict[str, Any], out: Path) -> None:
    from sdn.files import write_text
    from src.evaluation.report.evaluation import evaluation_page

    write_text(out / "evaluation.json", json.dumps(result, indent=1) + "\n")
    evaluation_page(out / "evaluation.html", module, activity, result)


if __name__ == "__main__":
    sys.exit(main())
