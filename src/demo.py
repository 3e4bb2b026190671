"""``python -m src.demo`` (``make demo``): the whole idea on real data in a few minutes, through the doors a user types.

Simulated neurons -> a fitted and reduced SDN -> a SpikingSSM trained with it on handwritten digits, and once more with
the exact neuron -> ``outputs/demo/report.html``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sdn.errors import UserError, door

TAU = 0.125
ROOT = Path(__file__).resolve().parent.parent


def commands(out: Path, quick: bool = False) -> dict[str, list[str]]:
    """What the demo runs, by name, as a user would type it after ``python``; ``quick``: only to see that it runs."""
    number, test_number, epochs, refine = (200, 100, 1, 1) if quick else (4000, 500, 8, 150)
    data = out / "dataset"
    name = f"mem-T1024-N(0.0,1.0)-{{}}-tau_{TAU}.pt"
    files = [str(data / f"{n}-{name.format(k)}") for n, k in (("training", number), ("test", test_number))]
    common = ["generate.py", str(data), "-t", str(TAU)]
    digits = ["-m", "train", "experiment=spikingssm/digits", *(["trainer.max_epochs=1"] if quick else [])]
    return {
        "simulate": [*common, "-N", str(number)],
        "simulate the test set": [*common, "-n", "test", "-N", str(test_number)],
        "fit the SDN": ["train.py", "--training", files[0], "--test", files[1], "--save", str(out / "sdn"), "--epochs",
                        str(epochs), "--refine", str(refine)],
        "train with the SDN": [*digits, f"model.layer.sdn={out / 'sdn' / 'sdn.safetensors'}",
                               f"hydra.run.dir={out / 'digits-sdn'}"],
        "train with the exact neuron": [*digits, "model.layer.neuron=sltt", f"hydra.run.dir={out / 'digits-sltt'}"],
    }  # fmt: skip


@door
def main(argv: list[str] | None = None) -> None:
    """Run the commands one after another, stop at the first that fails, write the report."""
    parser = argparse.ArgumentParser(prog="python -m src.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder for everything the demo makes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    options = parser.parse_args(argv)
    out = options.out
    for name in ("dataset", "sdn", "digits-sdn", "digits-sltt"):  # what an earlier demo left
        shutil.rmtree(out / name, ignore_errors=True)
    start, seconds = time.perf_counter(), {}
    steps = commands(out if Path.cwd() == ROOT else out.resolve(), options.quick)
    for i, (name, command) in enumerate(steps.items(), 1):
        print(f"\n[{i}/{len(steps)}] {name}: python {shlex.join(command)}", flush=True)
        before = time.perf_counter()
        if code := subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
            raise UserError(f"the step {name!r} ended with code {code}; its message stands above")
        seconds[name] = time.perf_counter() - before
    report = _report(out, steps, seconds, start)
    print(f"\ndone in {time.perf_counter() - start:.0f} s; open {report}")


def _report(out: Path, steps: dict[str, list[str]], seconds: dict[str, float], start: float) -> Path:
    from src.evaluation.activity import measure
    from src.evaluation.energy import Constants
    from src.evaluation.report.demo import demo_page
    from src.evaluation.summary import summary
    from src.restore import batches, restore

    runs: dict[str, dict[str, Any]] = {}
    for neuron in ("sdn", "sltt"):
        folder = out / f"digits-{neuron}"
        module, data = restore(folder / "checkpoints" / "best.ckpt")
        activity = measure(module, batches(module, data, "test"))
        result = summary(module, activity, Constants()) | {"checkpoint": str(folder), "split": "test"}
        runs[neuron] = {"folder": folder, "activity": activity, "result": result, "module": module,
                        "training": json.loads((folder / "results.json").read_text())}  # fmt: skip
    shown = {name: f"python {shlex.join(command)}" for name, command in steps.items()}
    return demo_page(out, runs, shown, seconds, time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
