"""``make gpu``: in at most ten minutes, all that waits for a GPU, and a folder of what came out.

The tests of the kernels; the neuron, step and framework benchmarks; the fused exact neuron against the surrogate at L
1 K to 16 K; and short trainings in bf16. Each part is a command of its own with a time of its own; of one
that fails or takes longer ``summary.json`` says so, and the next one begins. ``--dry`` runs the same on a CPU, small:
kernels in Triton's interpreter, tables of a few sizes, a few steps of training.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from sdn.errors import UserError, door

ROOT = Path(__file__).resolve().parent.parent
MINUTES = 10.0
"""For everything together."""


@dataclass
class Part:
    """A command, and the seconds it may take."""

    name: str
    command: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)


def parts(out: Path, dry: bool) -> list[Part]:
    """What is run, in this order; their seconds add up to less than :data:`MINUTES`."""
    python, device = sys.executable, "cpu" if dry else "cuda"
    table = [python, "-m", "benchmarks", "--device", device, "--out", str(out), *(["--quick"] if dry else [])]
    tests = ["tests/sdn/test_gpu_kernels.py", *(["-k", "nothing_to_do or never_spikes"] if dry else ["-m", "gpu"])]
    few = ["trainer.max_epochs=1", "trainer.limit_train_batches=2"] if dry else ["trainer.max_epochs=10"]
    short = [python, "-m", "train", "experiment=spikingssm/digits", "trainer.precision=bf16-mixed", *few]
    short += [f"trainer.accelerator={'cpu' if dry else 'gpu'}"]
    trainings = [
        Part(f"train-{name}", [*short, f"model.layer.neuron={name}", f"hydra.run.dir={out / f'run-{name}'}"], 45)
        for name in (("sltt",) if dry else ("sltt", "bptt", "sdn"))
    ]
    return [
        Part(
            "tests",
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            120,
            {"TRITON_INTERPRET": "1"} if dry else {},
        ),
        Part("exact", [*table, "--tables", "exact"], 60),
        Part("neuron", [*table, "--tables", "neuron"], 80),
        Part("step", [*table, "--tables", "step"], 90),
        Part("neuromorphic", [*table, "--tables", "neuromorphic"], 90),
        *trainings,
    ]


def run(part: Part, out: Path) -> dict[str, object]:
    """Run it, its words into ``NAME.log``; how it ended."""
    started = time.perf_counter()
    with (out / f"{part.name}.log").open("w") as log:
        try:
            code = subprocess.run(
                part.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=part.seconds,
                env=os.environ | part.environment,
                cwd=ROOT,
            ).returncode
            ended = "done" if code == 0 else f"failed with code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {part.seconds:.0f} s"
    return {"ended": ended, "seconds": round(time.perf_counter() - started, 1), "command": part.command[1:]}


@door
def main(argv: list[str] | None = None) -> int:
    """Run all parts; the exit code is 1 where one did not end well."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=None, help="folder of results (outputs/gpu-DATE)")
    parser.add_argument("--dry", action="store_true", help="everything but the device, small, on the CPU")
    options = parser.parse_args(argv)
    import torch

    from .conditions import conditions

    if not options.dry and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here, so nothing was run; --dry runs everything but the device")
    out = (options.out or Path("outputs") / f"gpu-{time.strftime('%Y-%m-%d-%H%M%S')}").resolve()
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, object] = {"dry": options.dry, **conditions(torch.device("cpu" if options.dry else "cuda"))}
    ended = summary["parts"] = {}
    for part in parts(out, options.dry):
        ended[part.name] = run(part, out)
        print(f"{part.name}: {ended[part.name]['ended']}, {ended[part.name]['seconds']} s", flush=True)
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"results are in {out}")
    return int(any(found["ended"] != "done" for found in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
