"""The recurrent state of a SpikingSSM: plain tensors, one pair a layer, batch first.

``state[i] = (modes, neuron)``: modes ``(B, H, N)`` complex; of the neuron what its ``step`` hands on: the membrane
potential ``(B, H)`` in thresholds, or a tuple of such tensors. All of it is zero before the first sample.
As lists and tuples of tensors it goes through ``torch.save`` and ``torch.load(weights_only=True)`` as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sdn.contract import NeuronState

LayerState: TypeAlias = tuple[Tensor, NeuronState]
State: TypeAlias = list[LayerState]


def select_rows(state: State, rows: Tensor | Sequence[int]) -> State:
    """The state of some ``rows`` of the batch, in that order; repeats are allowed. The result shares no memory."""
    index = torch.as_tensor(rows, dtype=torch.long, device=state[0][0].device)
    return [_map(lambda x: x[index], layer) for layer in state]


def concat_rows(states: Sequence[State]) -> State:
    """Several states as one batch, row after row."""
    return [_map(lambda *rows: torch.cat(rows), *layer) for layer in zip(*states, strict=True)]


def reset_rows(state: State, mask: Tensor) -> State:
    """A new state in which the rows where ``mask (B,)`` is true start again from zero."""
    return [_map(lambda x: x.masked_fill(mask.view(-1, *(1,) * (x.ndim - 1)), 0), layer) for layer in state]


def batch_size(state: State) -> int:
    """Rows of the batch that a state is of."""
    return state[0][0].shape[0]


def _map(f: Callable[..., Tensor], *trees: Any) -> Any:
    """``f`` of the tensors at the same place in each of ``trees``, tuples of tensors or of tuples."""
    if isinstance(trees[0], Tensor):
        return f(*trees)
    return tuple(_map(f, *parts) for parts in zip(*trees, strict=True))
