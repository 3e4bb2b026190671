"""Random crop, perspective and rotation of image sequences as one projective map, sampled once.

Each of the three is a 3 x 3 matrix on homogeneous coordinates (x, y, 1), x and y in [-1, 1], that says where an output
pixel comes from. Their product is applied in one nearest-neighbour look-up, so a frame is resampled once and not three
times. Ranges and laws are those of torchvision's transforms of the same names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(scale: tuple[float, float] = (0.6, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> Tensor:
    """Magnify a random window: its area uniform in ``scale``, its aspect ratio log-uniform in ``ratio``."""
    for _ in range(10):
        area = _uniform(*scale)
        aspect = math.exp(_uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            break
    else:
        width = height = 1.0
    x, y = _uniform(width - 1, 1 - width), _uniform(height - 1, 1 - height)
    return torch.tensor([[width, 0.0, x], [0.0, height, y], [0.0, 0.0, 1.0]])


def random_rotation(degrees: float = 25.0) -> Tensor:
    """Rotate about the middle by an angle uniform in [-``degrees``, ``degrees``]."""
    angle = math.radians(_uniform(-degrees, degrees))
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def random_perspective(distortion: float = 0.5, probability: float = 0.5) -> Tensor:
    """With ``probability`` move each corner inwards by up to ``distortion`` of half a side, else leave all as it is."""
    if torch.rand(()).item() >= probability:
        return torch.eye(3)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    return projective(corners * (1 - distortion * torch.rand(4, 2)), corners)


def projective(source: Tensor, target: Tensor) -> Tensor:
    """The 3 x 3 matrix that maps four points ``source`` (4, 2) to ``target`` (4, 2), its last entry 1."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source.double().tolist(), target.double().tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved = torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    return torch.cat([solved, solved.new_ones(1)]).reshape(3, 3).float()


def warp(frames: Tensor, matrix: Tensor) -> Tensor:
    """``frames`` (..., H, W) with output pixel p taken from ``matrix`` p, zero outside; one map for all frames."""
    height, width = frames.shape[-2:]
    y = (torch.arange(height) + 0.5) * (2 / height) - 1
    x = (torch.arange(width) + 0.5) * (2 / width) - 1
    grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(height, width)], dim=-1) @ matrix.T
    grid = grid[..., :2] / grid[..., 2:]
    out = F.grid_sample(frames.reshape(1, -1, height, width), grid[None], mode="nearest", align_corners=False)
    return out.reshape(frames.shape)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()
