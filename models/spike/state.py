"""The recurrent state of a SpikingSSM: plain tensors, one pair a layer, batch first.

``state[i] = (modes, membrane)``: modes ``(B, H, N)`` complex, membrane potential ``(B, H)`` in thresholds.
As a list of tuples of tensors it goes through ``torch.save`` and ``torch.load(weights_only=True)`` as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

LayerState: TypeAlias = tuple[Tensor, Tensor]
State: TypeAlias = list[LayerState]


def select_rows(state: State, rows: Tensor | Sequence[int]) -> State:
    """The state of some ``rows`` of the batch, in that order; repeats are allowed. The result shares no memory."""
    index = torch.as_tensor(rows, dtype=torch.long, device=state[0][0].device)
    return [(modes[index], membrane[index]) for modes, membrane in state]


def concat_rows(states: Sequence[State]) -> State:
    """Several states as one batch, row after row."""
    return [(torch.cat([s[0] for s in layer]), torch.cat([s[1] for s in layer])) for layer in zip(*states, strict=True)]


def reset_rows(state: State, mask: Tensor) -> State:
    """A new state in which the rows where ``mask (B,)`` is true start again from zero."""
    return [
        (modes.masked_fill(mask[:, None, None], 0), membrane.masked_fill(mask[:, None], 0)) for modes, membrane in state
    ]
