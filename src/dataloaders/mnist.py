"""Sequential MNIST and its permuted form."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from . import gate
from .images import GrayImages

PERMUTATIONS = ("bitreversal", "random")


class MNIST(GrayImages):
    """x (B, 784, 1): pixels / 255 row by row, or permuted, in the same order everywhere.

    Args:
        permute: as released, the order of :func:`bit_reversal`.
        permutation: ``bitreversal``, or ``random`` for one order drawn by ``permutation_seed``, the psMNIST of most
            publications; null: as ``permute`` says.
    """

    _name_ = "mnist"
    hub, size, folders, column = "ylecun/mnist", "17 MB", ("mnist",), "image"
    l_max = 784
    class_names = tuple("0123456789")
    input_scale: ClassVar = {"shift": [0.0], "scale": [1 / 255]}

    def __init__(
        self,
        data_dir: str | None = None,
        permute: bool = False,
        permutation: str | None = None,
        permutation_seed: int = 0,
        val_size: int = 6000,
        seed: int = 42,
    ) -> None:
        super().__init__(data_dir, val_size, seed)
        if permutation is not None:
            gate.one_of(PERMUTATIONS, permutation=permutation)
        gate.at_least(0, permutation_seed=permutation_seed)
        self.permutation = permutation or ("bitreversal" if permute else None)
        self.permutation_seed = permutation_seed

    def order(self) -> Tensor | None:
        if self.permutation is None:
            return None
        if self.permutation == "bitreversal":
            return bit_reversal(self.l_max)
        return torch.from_numpy(np.random.default_rng(self.permutation_seed).permutation(self.l_max))

    def facts(self) -> dict[str, Any]:
        """Also ``permutation``: step t of the network's input is pixel ``permutation[t]``, counted row by row."""
        order = self.order()
        return super().facts() if order is None else {**super().facts(), "permutation": order.tolist()}


def bit_reversal(n: int) -> Tensor:
    """The numbers below ``n`` in the order of their reversed bits: 0, 512, 256, 768, 128, ... for n = 784."""
    bits = (n - 1).bit_length()
    reverse = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    return torch.tensor([i for i in reverse if i < n])
