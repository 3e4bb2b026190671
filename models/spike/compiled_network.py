"""A network's numbers as arrays for the loops of :mod:`models.spike.stream_kernels`, and when they are stale."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sdn.checksum import raw
from sdn.errors import UserError

from .constants import EVERY_STEP, LAST, NORMS, POOL, float_type, step_constants
from .gate import finite_array
from .heads import EmbeddingEncoder, LinearEncoder, SequenceDecoder, StepDecoder, refuse_windows
from .ssm import SpikingSSM

if TYPE_CHECKING:
    from .network import Network


@functools.cache
def kernels() -> ModuleType:
    """The compiled loops.

    Raises:
        UserError: numba is not installed.
    """
    try:
        from . import stream_kernels
    except ImportError as error:
        raise UserError("the streaming engine is compiled by numba; pip install numba") from error
    return stream_kernels


class CompiledNetwork:
    """The ``arguments`` of ``stream_kernels.advance`` between the samples and the state, and the gate before it.

    Raises:
        UserError: an encoder, decoder or neuron that the loops do not compute, a bidirectional or a training network.
    """

    def __init__(self, network: Network, rate: float = 1.0, dtype: Any = np.float32) -> None:
        kernels()
        if not isinstance(getattr(network, "backbone", None), SpikingSSM):
            raise UserError(f"an engine runs a models.spike.Network, not {type(network).__name__}")
        self.dtype = float_type(dtype)
        if network.training:
            raise UserError("a model streams with fixed statistics and no dropout; call model.eval() first")
        refuse_windows(network.encoder)
        encoder, decoder, model = network.encoder, network.decoder, network.backbone
        self.n_tokens: int | None = None
        self.d_input = 0
        if type(encoder) is EmbeddingEncoder:
            self.n_tokens, table, shift = encoder.num_embeddings, encoder.weight, None
        elif type(encoder) is LinearEncoder:
            self.d_input, table, shift = encoder.in_features, encoder.weight.T, encoder.bias
        else:
            raise UserError("the engine reads through a linear encoder or an embedding; others stream by network.step")
        if type(decoder) is not SequenceDecoder and type(decoder) is not StepDecoder:
            raise UserError("the engine answers by a sequence or per-step decoder; others stream by network.step")
        c = step_constants(model, "event_engine", rate)
        norms, self.every_step = c.norms, isinstance(decoder, StepDecoder)
        self.mode = EVERY_STEP if isinstance(decoder, StepDecoder) else POOL if decoder.mode == "pool" else LAST
        bias = table.new_zeros(model.d_model) if shift is None else shift
        self.arguments = (
            (self._array(table), self._array(bias)),
            (
                *(self._pairs(z) for z in (c.A, c.B, c.drive / c.B)),
                *map(self._array, (c.D, c.tau, c.u_r, c.weight.transpose(1, 2), c.bias)),
            ),
            (
                self._array(torch.stack([norm.scale for norm in norms])),
                self._array(torch.stack([norm.shift for norm in norms])),
                np.array([norms[0].eps], self.dtype),
            ),
            (NORMS[norms[0].kind], bool(model.prenorm), bool(c.soft), self.mode),
            (self._array(decoder.output.weight.T), self._array(decoder.output.bias)),
        )
        self.n_layers, self.d_model, self.n_modes = c.A.shape
        self.d_output = decoder.output.out_features
        self._no_ids = np.empty((0, 0), np.int64)
        self._no_numbers = np.empty((0, 0, 0), self.dtype)

    @functools.cached_property
    def packed(self) -> tuple[NDArray, tuple[int, ...], tuple]:
        """:attr:`arguments` as ``stream_kernels.advance_once`` takes them: numbers, sizes, kinds."""
        encoder, layers, norms, kinds, decoder = self.arguments
        parts = (*encoder, *layers, *norms, *decoder)
        sizes = (len(encoder[0]), self.n_layers, self.d_model, 2 * self.n_modes, self.d_output)
        return np.concatenate([part.reshape(-1) for part in parts]), sizes, kinds

    def _array(self, tensor: Tensor) -> NDArray:
        return np.ascontiguousarray(tensor.detach().cpu().numpy(), self.dtype)

    def _pairs(self, tensor: Tensor) -> NDArray:
        return self._array(torch.view_as_real(tensor.contiguous()).flatten(-2))

    def check(self, x: NDArray, batch: int) -> tuple[NDArray, NDArray]:
        """``(xs, ids)`` of :func:`stream_kernels.advance`, one of them empty.

        Raises:
            UserError: another shape or type than this network reads, unknown ids, NaN or infinity.
        """
        if self.n_tokens is not None:
            if x.ndim != 2 or x.shape[0] != batch or x.dtype.kind not in "iu":
                raise UserError(f"this network reads whole numbers ({batch}, L), not {x.dtype} {x.shape}")
            ids = np.ascontiguousarray(x, np.int64)
            if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self.n_tokens):
                raise UserError(f"token ids lie in 0 .. {self.n_tokens - 1}, not in {ids.min()} .. {ids.max()}")
            return self._no_numbers, ids
        if x.ndim != 3 or x.shape[0] != batch or x.shape[2] != self.d_input or x.dtype.kind not in "fiub":
            wanted = f"({batch}, L, {self.d_input})" if x.ndim != 2 else f"({batch}, {self.d_input})"
            raise UserError(f"this engine takes numbers {wanted}, not {x.dtype} {x.shape}")
        return finite_array(x, self.dtype, kernels().finite), self._no_ids


_version = operator.attrgetter("_version")


class Watch:
    """Whether a network is still what it was: the same modules, hooks and weights.

    Changes that PyTorch counts (optimizers, ``load_state_dict``, ``to``) are noticed at once. One made behind its
    back, through ``.data``, is noticed by comparing contents: all when ``thoroughly``, else 16 KiB a call.
    """

    def __init__(self, network: nn.Module) -> None:
        modules = list(network.modules())
        self._owners: list[dict[str, Any]] = [
            own for m in modules for own in (m._modules, m._parameters, m._buffers) if own
        ]
        self._parts = list(self._now_parts())  # held, so that no other object can get the address of one
        self._hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._tensors = [*network.parameters(), *network.buffers()]
        self._versions = list(map(_version, self._tensors))
        self._addresses = list(map(Tensor.data_ptr, self._tensors))
        self._contents = [piece for t in self._tensors for piece in _pieces(memoryview(raw(t)))]
        self._turn = itertools.cycle(self._contents)

    def _now_parts(self) -> Iterator[object]:
        return itertools.chain.from_iterable(map(dict.values, self._owners))

    def unchanged(self, thoroughly: bool = False) -> bool:
        """True if the network computes what it did when this was made."""
        if sum(map(len, self._owners)) != len(self._parts) or not all(
            map(operator.is_, self._now_parts(), self._parts)
        ):
            return False
        if any(self._hooks) or list(map(_version, self._tensors)) != self._versions:
            return False
        if list(map(Tensor.data_ptr, self._tensors)) != self._addresses:
            return False
        if thoroughly:
            return all(now.tobytes() == then for now, then in self._contents)
        now, then = next(self._turn)
        return now.tobytes() == then


def _pieces(content: memoryview) -> Iterator[tuple[memoryview, bytes]]:
    """A tensor's memory and what is in it, 16 KiB at a time; bytes compare as fast as memory is read, views do not."""
    for start in range(0, len(content), 1 << 14):
        piece = content[start : start + (1 << 14)]
        yield piece, piece.tobytes()
