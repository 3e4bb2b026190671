"""Sums of an epoch, reduced over processes once at its end."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from .base import Sums


class Totals:
    """Running ``name -> (sum, count)``. Adding costs no synchronisation with the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, sums: Sums) -> None:
        """Add the sums of one batch."""
        for name, (total, count) in sums.items():
            # float64 counts exactly beyond 2^24; MPS has none
            wide = torch.float32 if total.device.type == "mps" else torch.float64
            pair = torch.stack([total.detach().to(wide), count.detach().to(wide)])
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def means(self) -> dict[str, float]:
        """Sum over count of each name, over all processes (a collective call)."""
        if not self._sums:
            return {}
        stacked = torch.stack(list(self._sums.values()))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(stacked)
        return {name: total / count for name, (total, count) in zip(self._sums, stacked.tolist(), strict=True) if count}

    def finite(self) -> bool:
        """False if any sum is NaN or infinite."""
        return all(bool(torch.isfinite(pair).all()) for pair in self._sums.values())

    def reset(self) -> None:
        self._sums = {}

    def state_dict(self) -> dict[str, list[float]]:
        """Plain numbers of this process."""
        return {name: pair.tolist() for name, pair in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]], device: torch.device) -> None:
        wide = torch.float32 if device.type == "mps" else torch.float64
        self._sums = {name: torch.tensor(pair, dtype=wide, device=device) for name, pair in state.items()}
