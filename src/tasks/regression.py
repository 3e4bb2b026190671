"""Numbers instead of classes, of whole sequences or of every step: mean squared and mean absolute error."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdn.errors import UserError

from .base import Shapes, Sums, Task, counted_samples, counted_steps


class Regression(Task):
    """Numbers (B, K) against y (B, K), or (B, L, K) against y (B, L, K) with ``decoder=per_step``; K is ``d_output``
    of the data, and y may leave out a K of 1.

    ``loss`` is the mean of (output - y)^2 over all numbers that count, ``mae`` that of |output - y|. Steps beyond
    ``z["lengths"]`` and samples with ``z["weight"]`` 0 do not count.
    """

    def __init__(self, data: Shapes, d_model: int) -> None:
        super().__init__()

    def predictions(self, output: Tensor) -> Tensor:
        """The numbers themselves."""
        return output

    def counted(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Tensor:
        """The sequences (B,) that count, or the steps (B, L) where the network answers every step."""
        return counted_steps(y, z) if output.dim() == 3 else counted_samples(y, z)

    def forward(self, output: Tensor, y: Tensor, z: dict[str, Any]) -> Sums:
        """Sums of ``loss`` and ``mae`` over the numbers that count.

        Raises:
            UserError: the shapes do not belong together.
        """
        if y.dim() == output.dim() - 1:
            y = y.unsqueeze(-1)
        if output.shape != y.shape:
            raise UserError(
                f"task=regression compares numbers of one shape, not {tuple(output.shape)} with {tuple(y.shape)}; "
                "decoder=per_step answers every step, decoder=sequence once a sequence"
            )
        counts = self.counted(output, y, z)
        # indexing and not a product: whatever stands in the padding, NaN included, must not come through
        error = output.float()[counts] - y.float()[counts]
        count = error.new_tensor(float(error.numel()))
        return {"loss": (error.square().sum(), count), "mae": (error.detach().abs().sum(), count)}

    def report(self, means: dict[str, float]) -> dict[str, float]:
        """Add ``mse``, the loss by its name."""
        return {**means, "mse": means["loss"]} if "loss" in means else means
