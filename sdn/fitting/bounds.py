"""What a network must not be worse than: wrong over true spikes and the largest error of mem on every law of the card.

They are another network's figures, measured here, or figures in a CSV file ``law,wrong_over_true,largest_error``.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..network import ReducedSDN
from ..weights import load_reduced
from .card import LAWS, draw
from .hard_windows import next_input, wrong

COLUMNS = ("law", "wrong_over_true", "largest_error")
_ROUNDING = 1e-6
_SEQUENCES, _STEPS = 2000, 512
_SHORTER = 8  # a sequence of constants is one draw: so many times more of them, and as much shorter


class Judge:
    """Fixed fresh sequences of every law, on which networks of one tau are compared.

    Wrong spikes are expected ones (see :mod:`sdn.fitting.hard_windows`): counts of a few dozen would decide by chance.
    Those of constants are counted, as the next input is no draw.
    """

    def __init__(self, tau: float, seed: int, sequences: int = _SEQUENCES, steps: int = _STEPS) -> None:
        self.drawn = []
        for law in LAWS.values():
            parts = min(steps, _SHORTER) if law.name == "constant" else 1
            self.drawn.append((law, *draw(law, tau, sequences * parts, steps // parts, seed)))
        fewest = [1 / max(1, int(spike.sum())) for *_, spike in self.drawn]
        self.least = torch.tensor([fewest, [_ROUNDING] * len(LAWS)]).double()  # one wrong spike; no error to speak of

    @torch.no_grad()
    def __call__(self, sdn: ReducedSDN) -> Tensor:
        """``(2, laws)``: wrong over true spikes, and largest errors."""
        figures = []
        for law, current, mem, spike in self.drawn:
            predicted = sdn(current)
            if law.name == "constant":
                amiss = (predicted + current >= 1) != (spike > 0)
            else:
                amiss = wrong(predicted.double(), mem.double(), *next_input(law, current))
            figures.append((amiss.sum() / max(1, int(spike.sum())), (predicted - mem).abs().max()))
        return torch.tensor(figures).double().T.contiguous()


def read_bounds(path: str, tau: float, judge: Judge) -> Tensor:
    """``(2, laws)`` of a CSV file, or of a reduced SDN as ``judge`` finds them.

    Raises:
        UserError: a file that is neither, another tau, a law missing or unknown, a number that is not above 0.
    """
    if not path.endswith(".csv"):
        return judge(load_reduced(path, tau)).maximum(judge.least)
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the bounds {path}: {error}") from error
    found: dict[str, tuple[float, float]] = {}
    for row in rows:
        try:
            law, numbers = row[COLUMNS[0]], (float(row[COLUMNS[1]]), float(row[COLUMNS[2]]))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path} needs the columns {', '.join(COLUMNS)} with numbers; wrong is {row}") from None
        if not all(0 < number < math.inf for number in numbers):
            raise UserError(f"bounds must be numbers above 0; in {path} wrong is {row}")
        found[law] = numbers
    if odd := sorted(set(found) ^ set(LAWS)):
        raise UserError(f"{path} must have one row for each law of the card; missing or unknown: {'; '.join(odd)}")
    return torch.tensor([found[law] for law in LAWS]).double().T.contiguous()
