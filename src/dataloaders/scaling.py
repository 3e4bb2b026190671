"""Bringing the channels of sequences to one size: x = (recorded - shift) * scale."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm


class Scale:
    """(..., d) of any type -> (x - shift) * scale, float32; a class so that loader processes can receive it."""

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        self.shift, self.scale = shift, scale

    def __call__(self, x: Tensor) -> Tensor:
        return (x.float() - self.shift) * self.scale


def mean_and_deviation(flat: Tensor, ends: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) float64 over all steps of the sequences ``rows``."""
    starts = ends.diff(prepend=ends.new_zeros(1)).neg() + ends
    total = torch.zeros(flat.shape[1], dtype=torch.float64)
    squares, count, pivot = total.clone(), 0, None
    for i in tqdm(sorted(rows.tolist()), desc="scaling", unit="seq", disable=None, leave=False):
        x = flat[starts[i] : ends[i]].double()
        pivot = x.mean(0) if pivot is None else pivot  # near the mean, so that the squares do not cancel
        total += (x - pivot).sum(0)
        squares += (x - pivot).square().sum(0)
        count += len(x)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean + pivot, torch.where(deviation > 1e-7 * (mean + pivot).abs(), deviation, 0.0)
