"""The model card of a reduced SDN: what it was made from, and how it spikes on many kinds of input.

``python -m sdn.card WEIGHTS`` measures on fresh sequences (1000 of 1024 steps a law, by a seed of its own) and writes
the card beside the weights, with the baselines: no memory, and the exact recurrence over the last K inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, door
from ..files import write_text
from ..network import ReducedSDN
from ..weights import load_reduced
from .laws import Law, make_law
from .metrics import SpikeScore, baselines, evaluate
from .simulate import scan

LAWS: dict[str, Law] = {
    **{f"white N(0, {std})": make_law("white", 0, std) for std in (0.5, 1, 2, 4, 16)},
    "AR(1) .99, mean 0, std 1": make_law("ar1", 0, 1, rho=0.99),
    "white N(.9, .3)": make_law("white", 0.9, 0.3),
    "AR(1) .99, mean .8, std .2 (slow, near the threshold)": make_law("ar1", 0.8, 0.2, rho=0.99),
    "constant U(.5, 1.5)": make_law("constant", 1, 0.5, noise=0),
}
_LIMITS = {
    1: "On white input what limits the network is not its window but its two layers of ReLU, which follow the reset "
    "exactly one step back and only nearly so before. ",
    2: "Mem jumps by tau where the potential meets the threshold; the network has a ramp there. A spike goes wrong "
    "within its width, and the largest error is what is left of the jump at its end. ",
}
WHITE, SLOW, CONSTANT = list(LAWS)[1], list(LAWS)[-2], list(LAWS)[-1]
OWN = "this SDN"


def draw(law: Law, tau: float, sequences: int, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh ``(current, mem, spike)``, each ``(sequences, steps)``; not a stream that generate.py ever uses."""
    current = law.draw(np.random.default_rng([seed, *law.tag.encode()]), sequences, steps)
    mem, spike = scan(current, tau)
    return torch.from_numpy(current), torch.from_numpy(mem), torch.from_numpy(spike)


def measure(
    sdn: ReducedSDN, sequences: int = 1000, steps: int = 1024, seed: int = 1
) -> Iterator[tuple[str, str, SpikeScore]]:
    """``(law, predictor, score)`` for every law, the network first, then the baselines."""
    predictors: dict[str, Callable[[Tensor], Tensor]] = {OWN: sdn.float(), **baselines(sdn.tau)}
    for name, law in LAWS.items():
        current, mem, spike = draw(law, sdn.tau, sequences, steps, seed)
        for predictor, predict in predictors.items():
            yield name, predictor, evaluate(predict, current, mem, spike)


def card(
    sdn: ReducedSDN,
    file: str,
    scores: dict[str, dict[str, SpikeScore]],
    command: str,
    note: str = "",
    picture: str = "",
) -> str:
    """The card as Markdown; ``scores`` by law, then predictor."""
    white, slow, constant = (scores[law][OWN] for law in (WHITE, SLOW, CONSTANT))
    exact_slow, exact_constant = (scores[law]["exact over the last 8 inputs"] for law in (SLOW, CONSTANT))
    parts = [
        f"# {file}",
        f"A reduced surrogate dynamic network for LIF neurons with decay tau = {sdn.tau} a step, threshold 1, hard "
        f"reset to 0. It predicts mem = tau u before each input from the {sdn.receptive_field} inputs before it; "
        f"{sdn.n_weights()} weights ({sdn.n_layers} layer{'s' * (sdn.n_layers > 1)}, d = {sdn.d_model}, "
        f"k = {sdn.kernel_size}).",
        f"White N(0, 1) input: **wrong over true spikes {white.ratio:.5f}**, MAE of mem {white.mae_mean:.5f}.",
        "## Made by",
        _made_by(sdn.meta) + (f"\n\n{note}" if note else ""),
        "## Measured",
        f"Every row: {white.steps} steps of fresh sequences, exact neuron against this file, by `{command}`.",
        _own_table({law: by[OWN] for law, by in scores.items()}),
        "Wrong over true spikes next to predictors without any weight (MAE of mem in brackets):",
        _baseline_table(scores),
        "## Where it stays wrong",
        f"On slow drive near the threshold it gets {slow.ratio:.0%} as many spikes wrong as there are, on constants "
        f"{constant.ratio:.0%}. A window of {sdn.receptive_field} cannot mend that: under steady drive a neuron counts "
        "the steps since its last spike, and where the count began lies before the window. The exact recurrence over "
        f"the last 8 inputs gets {exact_slow.ratio:.0%} and {exact_constant.ratio:.0%} wrong there, and on constants "
        f"no window of any length helps. {_LIMITS.get(sdn.n_layers, '')}For slow input take the exact neurons (`sltt`, "
        "`bptt`); an SDN is for input that jumps about from step to step.",
    ]
    if picture:
        parts.append(f"![error of one layer against window and width]({picture})")
    return "\n\n".join(parts) + "\n"


def _made_by(meta: dict[str, Any]) -> str:
    lines = [_generate_line(header) for header in meta.get("refine_data", [])]
    if "command" in meta:
        lines.append(meta["command"])
    plain = {k: v for k, v in sorted(meta.items()) if k != "command" and not isinstance(v, (dict, list))}
    text = "```\n" + "\n".join(lines) + "\n```\n\n" if lines else ""
    return text + ("; ".join(f"{key} {value}" for key, value in plain.items()) or "Nothing is recorded.")


def _generate_line(header: dict[str, Any]) -> str:
    line = f"python generate.py dataset -n {header['name']} -N {header['N']} -T {header['T']} -t {header['tau']}"
    line += f" -m {header['mean']} -s {header['std']} --seed {header['seed']}"
    if header["law"] != "white":
        line += f" --law {header['law']}"
    return line + "".join(f" --{name} {header[name]}" for name in ("rho", "noise") if name in header)


def _own_table(scores: dict[str, SpikeScore]) -> str:
    rows = [
        "| input | true rate | spike accuracy | wrong / true spikes | MAE of mem | max error |",
        "|---|" + "---:|" * 5,
    ]
    for law, s in scores.items():
        rows.append(
            f"| {law} | {s.rate:.3f} | {s.spike_accuracy:.5f} | {s.ratio:.5f} | {s.mae_mean:.5f} | {s.mae_max:.3f} |"
        )
    return "\n".join(rows)


def _baseline_table(scores: dict[str, dict[str, SpikeScore]]) -> str:
    names = list(next(iter(scores.values())))
    rows = ["| input | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for law, by in scores.items():
        rows.append(f"| {law} | " + " | ".join(f"{s.ratio:.5f} ({s.mae_mean:.5f})" for s in by.values()) + " |")
    return "\n".join(rows)


@door
def main(argv: list[str] | None = None) -> None:
    """The command ``python -m sdn.card``."""
    p = argparse.ArgumentParser(prog="python -m sdn.card", description=__doc__.split("\n\n")[0])
    p.add_argument("weights", help="reduced SDN, safetensors")
    p.add_argument("--output", help="card to write (the weights' name with .md)")
    p.add_argument("--note", default="", help="a sentence on how the network was made")
    p.add_argument("--sequences", type=int, default=1000, help="of each law (1000)")
    p.add_argument("--steps", type=int, default=1024, help="of each sequence (1024)")
    p.add_argument("--seed", type=int, default=1, help="of the sequences (1)")
    args = p.parse_args(argv)
    if min(args.sequences, args.steps) < 1 or args.seed < 0:
        raise UserError("sequences and steps must be at least 1 and the seed at least 0")
    path, sdn = Path(args.weights), load_reduced(args.weights)
    output = Path(args.output) if args.output else path.with_suffix(".md")
    scores: dict[str, dict[str, SpikeScore]] = {}
    for law, predictor, score in measure(sdn, args.sequences, args.steps, args.seed):
        scores.setdefault(law, {})[predictor] = score
        if predictor == OWN:
            print(f"{law}: wrong/true {score.ratio:.5f}, MAE {score.mae_mean:.5f}", flush=True)
    command = (
        f"python -m sdn.card {path.as_posix()} --sequences {args.sequences} --steps {args.steps} --seed {args.seed}"
    )
    picture = "window_and_width.png" if (output.parent / "window_and_width.png").is_file() else ""
    write_text(output, card(sdn, path.name, scores, command, args.note, picture))
    print(output)
