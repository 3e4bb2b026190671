"""S4D table: the convolution kernel through the (H, N, L) tensor against the factored sum, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.spike.kernel import mode_sum, mode_sum_direct
from models.spike.s4d import S4DKernel

from .rows import Row, rows_of
from .timing import interleaved


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per (H, N, L), N = d_state; ratios to the direct form."""
    torch.manual_seed(0)
    sizes = [(512, 64, 1024), (64, 64, 16384)] if quick else [(512, 64, 1024), (256, 64, 4096), (256, 64, 16384)]
    for H, N, L in sizes:
        kernel = S4DKernel(H, N).to(device)
        weight = torch.randn(1, H, L, device=device)
        calls = {
            "direct": _step(kernel, mode_sum_direct, weight),
            "factored": _step(kernel, mode_sum, weight),
        }
        measured = interleaved(calls, device, repeats=3 if quick else 7)
        yield from rows_of("s4d", f"H {H}, N {N}, L {L}, forward + backward", measured, against="direct")


def _step(kernel: S4DKernel, sum_: Callable[[Tensor, Tensor, int], Tensor], weight: Tensor) -> Callable[[], None]:
    def step() -> None:
        kernel.zero_grad(set_to_none=True)
        dtA, B_bar, C = kernel.discretise()
        (sum_(C * B_bar, dtA, weight.shape[-1]) * weight).sum().backward()

    return step
