"""Tensors as the arrays that compiled passes read and write, and how many shares of work to make."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sdn.kernels.simd import aligned

_SHARES = 4  # equal parts of the work a thread may take, where sums are kept for each


def real(dtype: torch.dtype) -> type[np.floating]:
    """The numpy type of float32 or float64."""
    return np.float64 if dtype == torch.float64 else np.float32


def new(*shape: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised, see :func:`sdn.kernels.simd.aligned`."""
    return torch.from_numpy(aligned(math.prod(shape), real(dtype))).view(shape)


def flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().reshape(-1).numpy()


def shares() -> int:
    threads = torch.get_num_threads()
    return 1 if threads == 1 else _SHARES * threads
