"""The backbone with the manners that state-spaces/s4's training loop expects of a model."""

from __future__ import annotations

import torch
from torch import Tensor

from .ssm import SpikingSSM
from .state import State


class SpikingSSMForS4(SpikingSSM):
    """:class:`SpikingSSM` as S4's loop calls it: more keyword arguments than it reads, and ``default_state``."""

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, rate: float = 1.0, **_: object
    ) -> tuple[Tensor, State | None]:
        """As :meth:`SpikingSSM.forward`; what else S4's data sets deliver (``l_output``, ...) is for its decoders."""
        return super().forward(x, state, lengths, rate)

    def default_state(self, *batch_shape: int, device: torch.device | None = None) -> State:
        """S4's name for ``initial_state``."""
        (batch,) = batch_shape
        return self.initial_state(batch, device=device)
