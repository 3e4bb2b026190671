"""A whole network as an engine for streams: encoder, layers, running answer, compiled, for one stream or many at once.

What :class:`Network.step` computes, without PyTorch between the samples: only the weight columns of neurons that fired
are added, and every stream has a state of its own in one block of memory. The truth it is tested against is ``step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from torch import Tensor

from sdn.checksum import load_tensors, save_tensors
from sdn.errors import UserError
from sdn.kernels.threads import spread

from .compiled_network import CompiledNetwork, kernels
from .gate import as_array, refuse_not_finite
from .heads import Summary
from .network import Network, NetworkState
from .options import whole

FORMAT = "spikingssm-streams-1"


class StreamEngine:
    """``batch`` streams through a network.

    ``step(x (B, d_input)) -> answers (B, C)`` for one sample of every stream, ``run(x (B, L, d_input)) -> (B, L, C)``
    for a block of each; token networks take ids ``(B,)`` and ``(B, L)``. The answer is that of the samples since the
    stream's last reset, or of this sample where the decoder answers at every step.

    Args:
        network: a causal :class:`Network` of LIF neurons; its weights are copied, later training does not reach it.
        batch: number of streams.
        rate: the sampling step in units of the training data's.
        dtype: numpy float type of weights, state and arithmetic; float32 or float64.

    Raises:
        UserError: the network cannot stream, or its parts are not of the kind that the engine computes.
    """

    def __init__(self, network: Network, batch: int = 1, rate: float = 1.0, dtype: Any = np.float32) -> None:
        whole(batch=batch)
        self._net, self._advance = CompiledNetwork(network, rate, dtype), kernels().advance
        self.batch, self.dtype, self.n_layers = batch, self._net.dtype, self._net.n_layers
        n, H, N = self._net.n_layers, self._net.d_model, self._net.n_modes
        self._h, self._u = np.zeros((n, batch, H, 2 * N), self.dtype), np.zeros((n, batch, H), self.dtype)
        self._summary, self._seen = np.zeros((batch, H)), np.zeros(batch, np.int64)
        self.spikes, self._steps = np.zeros((batch, n), np.int64), np.zeros(batch, np.int64)

    # ------------------------------------------------------------------------------------------------------- samples

    def step(self, x: ArrayLike | Tensor) -> NDArray:
        """One sample of every stream -> answers ``(B, C)``."""
        given = as_array(x)
        return self.run(np.expand_dims(given, 1) if given.ndim else given)[:, 0]

    def run(self, x: ArrayLike | Tensor, every: bool = True) -> NDArray:
        """A block of L samples of every stream -> the answer after each, ``(B, L, C)``; after the last only with
        ``every=False``, ``(B, C)``.

        Raises:
            UserError: another shape or type than the network reads, ids outside the vocabulary, NaN or infinity. The
                state is then as it was.
        """
        xs, ids = self._net.check(as_array(x), self.batch)
        L = ids.shape[1] if ids.size else xs.shape[1]
        if not (L or every):
            raise UserError("a block of no samples has no last answer; ask for every one, or leave it out")
        out = np.empty((self.batch, L if every else min(L, 1), self._net.d_output), self.dtype)
        if L:
            state = (self._h, self._u, self._summary, self._seen, self.spikes)
            spread(self._advance, self.batch, 1, xs, ids, out, *self._net.arguments, *state)
            self._steps += L
        return out if every else out[:, -1]

    # ------------------------------------------------------------------------------------------------------- streams

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Start the streams ``rows`` (numbers, or B booleans; None: all) again from the zero state.

        Raises:
            UserError: there is no such stream.
        """
        which: slice | NDArray = slice(None) if rows is None else self._rows(rows)
        for array in (self._summary, self._seen, self.spikes, self._steps):
            array[which] = 0
        self._h[:, which] = 0
        self._u[:, which] = 0

    def _rows(self, rows: ArrayLike) -> NDArray:
        given = np.asarray(rows)
        if not given.size:
            return np.empty(0, np.int64)
        if given.dtype.kind == "b" and given.shape == (self.batch,):
            return np.flatnonzero(given)
        if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= self.batch:
            raise UserError(f"the streams are numbered 0 .. {self.batch - 1}, or named by {self.batch} booleans")
        return given

    @property
    def firing_rates(self) -> NDArray:
        """Spikes per channel and step, ``(B, n_layers)``, since each stream's last reset."""
        return self.spikes / np.maximum(self._steps * self._net.d_model, 1)[:, None]

    def state(self) -> dict[str, Tensor]:
        """A copy of where all streams stand, as plain tensors that :meth:`load_state` takes back.

        ``modes (n, B, H, N)`` complex, ``membrane (n, B, H)``, ``summary (B, H)`` float64, ``seen (B,)`` int64.
        """
        modes = torch.view_as_complex(torch.from_numpy(self._h.copy()).unflatten(-1, (-1, 2)))
        return {
            "modes": modes,
            "membrane": torch.from_numpy(self._u.copy()),
            "summary": torch.from_numpy(self._summary.copy()),
            "seen": torch.from_numpy(self._seen.copy()),
        }

    def load_state(self, state: dict[str, Tensor] | NetworkState) -> None:
        """Go on from a state of this engine or of the network, such as the one after a prefix run in parallel.

        Counts of spikes start from zero.

        Raises:
            UserError: a state of another network or number of streams, or one that is not finite.
        """
        if not isinstance(state, (NetworkState, Mapping)):
            raise UserError(f"a state is what state() or a network returns, not {type(state).__name__}")
        parts = _of_network(state, self._summary.shape) if isinstance(state, NetworkState) else dict(state)
        own = self.state()
        if odd := [key for key, value in parts.items() if not isinstance(value, Tensor)]:
            raise UserError(f"this is no state: {odd[0]} is no tensor")
        if parts.keys() != own.keys() or any(parts[key].shape != own[key].shape for key in own):
            found = {key: tuple(value.shape) for key, value in parts.items()}
            wanted = {key: tuple(value.shape) for key, value in own.items()}
            raise UserError(f"this is a state of another network or number of streams: {found}, not {wanted}")
        if any(parts[key].is_complex() != own[key].is_complex() for key in own):
            raise UserError("this is no state of an engine: its modes are complex numbers, the rest is real")
        if not all(bool(torch.isfinite(parts[key]).all()) for key in own) or bool((parts["seen"] < 0).any()):
            raise refuse_not_finite("a number in the state")
        modes = torch.view_as_real(parts["modes"].detach().cpu()).flatten(-2)
        self._h[...] = modes.numpy()
        self._u[...] = parts["membrane"].detach().cpu().numpy()
        self._summary[...], self._seen[...] = parts["summary"].cpu().numpy(), parts["seen"].cpu().numpy()
        self.spikes[...], self._steps[...] = 0, 0

    def save(self, path: str | PathLike[str]) -> None:
        """Write :meth:`state` to a safetensors file with its checksum, atomically."""
        tensors = self.state()
        tensors["modes"] = torch.view_as_real(tensors["modes"])
        save_tensors(path, tensors, {"format": FORMAT})

    def load(self, path: str | PathLike[str]) -> None:
        """Go on from a file of :meth:`save`.

        Raises:
            UserError: no such file, a damaged one, or one of another network.
        """
        try:
            tensors, header = load_tensors(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is no readable file of streams: {error}") from error
        if header.get("format") != FORMAT or "modes" not in tensors:
            raise UserError(f"{path} holds no streams: its header does not say {FORMAT}")
        modes = tensors.pop("modes")
        self.load_state({"modes": torch.view_as_complex(modes.contiguous()), **tensors})


def _of_network(state: NetworkState, shape: tuple[int, ...]) -> dict[str, Tensor]:
    potentials = [membrane for _, membrane in state.layers if isinstance(membrane, Tensor)]
    if len(potentials) != len(state.layers):
        raise UserError("the engine's neurons remember one potential a channel; this state holds others")
    modes, membrane = torch.stack([modes for modes, _ in state.layers]), torch.stack(potentials)
    summary = state.summary or Summary(torch.zeros(shape, dtype=torch.float64), 0)
    seen = torch.full(modes.shape[1:2], summary.count, dtype=torch.int64)
    return {"modes": modes, "membrane": membrane, "summary": summary.value.double(), "seen": seen}
