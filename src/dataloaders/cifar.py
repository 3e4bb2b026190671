"""Gray sequential CIFAR-10, the "Image" task of the Long Range Arena."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .images import GrayImages

MEAN, STD = 122.6 / 255, 61.0 / 255  # of the gray training images


class CIFAR(GrayImages):
    """x (B, 1024, 1): luma row by row, (pixel / 255 - mean) / std."""

    _name_ = "cifar"
    hub, size, folders, column = "uoft-cs/cifar10", "144 MB", ("cifar10", "cifar"), "img"
    l_max = 1024
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    input_scale: ClassVar = {"shift": [255 * MEAN], "scale": [1 / (255 * STD)]}

    def pixels(self, x: Tensor) -> Tensor:
        return super().pixels(x).sub(MEAN).div(STD)
