"""Digits: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, a real data set that needs no download."""

from __future__ import annotations

from typing import ClassVar

import torch

from sdn.errors import UserError

from .base import SequenceData, TensorSet


class Digits(SequenceData):
    """x (B, 64, 1): pixels row by row, 0..16 -> [0, 1]; y: the digit. Stratified random splits."""

    _name_ = "digits"
    d_output = 10
    l_max = 64
    class_names = tuple("0123456789")
    input_scale: ClassVar = {"shift": [0.0], "scale": [1 / 16]}

    def __init__(self, val_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 42) -> None:
        super().__init__(seed=seed)
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise UserError("dataset.val_fraction and test_fraction must be positive and leave a rest to train on")
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def setup(self) -> None:
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise UserError("the digits come with scikit-learn; run `pip install scikit-learn`") from error
        images, labels = load_digits(return_X_y=True)
        rest, test = train_test_split(
            range(len(labels)), test_size=self.test_fraction, stratify=labels, random_state=self.seed
        )
        share = self.val_fraction / (1 - self.test_fraction)
        train, val = train_test_split(rest, test_size=share, stratify=labels[rest], random_state=self.seed)
        x, y = torch.from_numpy(images).float().div(16).unsqueeze(-1), torch.from_numpy(labels)
        self.train, self.val, self.test = (TensorSet(x[part], y[part]) for part in (train, val, test))
