"""Sequential MNIST and its permuted form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .images import GrayImages


class MNIST(GrayImages):
    """x (B, 784, 1): pixels / 255 row by row, or with ``permute`` in :func:`bit_reversal` order."""

    _name_ = "mnist"
    hub, size, folders, column = "ylecun/mnist", "17 MB", ("mnist",), "image"
    l_max = 784
    class_names = tuple("0123456789")
    input_scale: ClassVar = {"shift": [0.0], "scale": [1 / 255]}

    def __init__(
        self, data_dir: str | None = None, permute: bool = False, val_size: int = 6000, seed: int = 42
    ) -> None:
        super().__init__(data_dir, val_size, seed)
        self.permute = permute

    def order(self) -> Tensor | None:
        return bit_reversal(self.l_max) if self.permute else None


def bit_reversal(n: int) -> Tensor:
    """The numbers below ``n`` in the order of their reversed bits: 0, 512, 256, 768, 128, ... for n = 784."""
    bits = (n - 1).bit_length()
    reverse = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    return torch.tensor([i for i in reverse if i < n])
