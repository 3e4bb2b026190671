"""``python -m benchmarks.against CHECKOUT``: whole training steps of this code against another checkout's, in turns.

Forward and backward pass of ``sltt`` networks, each measurement in a process of its own, the two checkouts by turns;
the quicker of two medians of five counts. Peak memory is what the process grew by after network and input were made.
``--busy 2`` runs that many busy loops beside it. A table of five shapes takes about two minutes a number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from sdn.errors import UserError, door

SHAPES: dict[str, tuple[int, int, int, int, bool, int]] = {
    "batch 50, L 784, 2 x 64, causal": (50, 784, 64, 2, False, 64),
    "batch 50, L 784, 2 x 128, causal": (50, 784, 128, 2, False, 64),
    "batch 32, L 1,400, 4 x 128, bidirectional, d_state 4": (32, 1400, 128, 4, True, 4),
    "batch 4, L 1,024, 2 x 256, causal": (4, 1024, 256, 2, False, 64),
    "batch 4, L 1,024, 2 x 512, bidirectional": (4, 1024, 512, 2, True, 64),
}
"""Batch, length, width, layers, bidirectional, d_state."""

_STEP = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[3]))
from models.spike.ssm import SpikingSSM
B, L, H, n, both, N = json.loads(sys.argv[2])
torch.manual_seed(0)
layer = {"neuron": "sltt", "d_state": N, "bidirectional": both}
model = SpikingSSM(H, n, dropout=0.1, prenorm=True, norm="layer", layer=layer).train()
x, grad = torch.randn(B, L, H), torch.randn(B, L, H) / B
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, taken = peak(), []
for i in range(7):
    start = time.perf_counter()
    model.zero_grad()
    model(x)[0].backward(grad)
    taken.append(time.perf_counter() - start)
print(json.dumps([sorted(taken[2:])[2], peak() - before]))
"""


def measure(checkout: Path, shape: tuple[int, ...], threads: int) -> tuple[float, float]:
    """Seconds of a step and MiB at its peak."""
    call = [sys.executable, "-c", _STEP, str(checkout), json.dumps(shape), str(threads)]
    done = subprocess.run(call, capture_output=True, text=True, env={"GOMP_SPINCOUNT": "0"} | dict(os.environ))
    if done.returncode:
        raise UserError(f"a step of {checkout} failed: {done.stderr.strip().splitlines()[-1]}")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@door
def main() -> None:
    """Print a line a shape."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__.split("\n\n")[0])
    parser.add_argument("checkout", type=Path, help="a checkout of another commit: git worktree add PATH COMMIT")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="CPU threads (2)")
    parser.add_argument("--busy", type=int, default=0, help="busy loops beside the measurements (0)")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only so many of the shapes")
    options = parser.parse_args()
    ours, theirs = Path(__file__).resolve().parent.parent, options.checkout.resolve()
    if not (theirs / "models" / "spike" / "ssm.py").is_file():
        raise UserError(f"{theirs} is no checkout of this repository; make one with git worktree add PATH COMMIT")
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        print(f"load {os.getloadavg()[0]:.1f}, {options.busy} busy loops beside; milliseconds, ns an element and layer")
        for threads in options.threads:
            for name, shape in list(SHAPES.items())[: options.shapes]:
                taken = [(measure(theirs, shape, threads), measure(ours, shape, threads)) for _ in range(2)]
                (a, m), (b, n) = (tuple(map(min, zip(*side, strict=True))) for side in zip(*taken, strict=True))
                each = 1e9 / (shape[0] * shape[1] * shape[2] * shape[3])
                print(
                    f"{threads} threads, {name}: {a * 1e3:.0f} -> {b * 1e3:.0f} ms ({a / b:.2f}x), "
                    f"{a * each:.1f} -> {b * each:.1f} ns, peak {m:.0f} -> {n:.0f} MiB ({n / m:.2f})",
                    flush=True,
                )
    finally:
        for loop in loops:
            loop.kill()


if __name__ == "__main__":
    sys.exit(main())
