"""Simulate LIF neurons on random currents and write the data set that an SDN is fitted to.

python generate.py dataset                  training set, 50000 sequences of 1024 steps
python generate.py dataset -n test          another random stream for the test set
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from sdn.errors import UserError, door


def parser() -> argparse.ArgumentParser:
    """The command line; importing it loads neither torch nor numpy."""
    p = argparse.ArgumentParser(
        prog="generate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("root", metavar="ROOT", help="folder to write to; made if it does not exist")
    p.add_argument("-n", "--name", default="training", help="name of the data set; each has its own stream (training)")
    p.add_argument("-N", "--number", type=int, default=50000, help="sequences (50000)")
    p.add_argument("-T", "--timestep", type=int, default=1024, help="time steps of a sequence (1024)")
    p.add_argument("-m", "--mean", type=float, help="mean of the input (0.0; law constant: 1.0)")
    p.add_argument("-s", "--std", type=float, help="standard deviation of the input (1.0; law constant: 0.5)")
    p.add_argument("-t", "--tau", type=float, default=0.2, help="decay of the membrane per step, 0 < tau < 1 (0.2)")
    p.add_argument(
        "--law",
        default="white",
        help="law of the input: white N(mean, std); ar1, the same with correlated neighbours; constant, a level a "
        "sequence from mean - std to mean + std plus noise; mixture of all three over many scales (white)",
    )
    p.add_argument("--rho", type=float, help="law ar1: correlation of neighbouring steps (0.99)")
    p.add_argument("--noise", type=float, help="law constant: standard deviation of the noise (0.1)")
    p.add_argument("--seed", type=int, default=0, help="seed; the name takes part in the random stream as well (0)")
    p.add_argument("--device", default="cpu", help="where to simulate, cpu or cuda; the file is the same (cpu)")
    p.add_argument("--force", action="store_true", help="replace an existing file")
    return p


@door
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from rich.progress import Progress, TimeElapsedColumn

    from sdn.device import check_device
    from sdn.fitting.laws import make_law
    from sdn.fitting.simulate import Recipe, write

    law = make_law(args.law, args.mean, args.std, args.rho, args.noise)
    recipe = Recipe(args.name, args.number, args.timestep, law, args.tau, args.seed).check()
    device = check_device(args.device)
    path = Path(args.root) / recipe.file_name
    if path.exists() and not args.force:
        raise UserError(f"{path} exists and is left as it is; --force replaces it")

    started = time.monotonic()
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        task = progress.add_task(f"simulating {args.number} x {args.timestep}", total=2 * args.number)
        rate = write(recipe, path, device, advance=lambda rows: progress.advance(task, rows))
    seconds = time.monotonic() - started
    print(f"{path}: spiking rate {rate:.4f}, {path.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    # A polite kill unwinds like any exit, so that the unfinished file is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
