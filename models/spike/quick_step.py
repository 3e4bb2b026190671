"""``Network.step`` by compiled code: one call instead of some hundred of PyTorch's, for a network that does not change.

The plain composition in :mod:`models.spike.network` is the truth and serves everything else: training networks, other
devices and types, neurons that are no LIF, hooks, tracing, and the first steps after the weights changed, since reading
the weights costs as much as a few steps.
"""

from __future__ import annotations

import itertools
import operator
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdn.errors import UserError

from .compiled_network import CompiledNetwork, Watch
from .compiled_network import kernels as compiled_kernels
from .constants import POOL
from .gate import check_rows, refuse_not_finite
from .heads import Summary
from .state import State

if TYPE_CHECKING:
    from .network import Network, NetworkState

PATIENCE = 4
"""Steps with the same weights before they are read."""

_REAL = {torch.float32: (np.float32, torch.complex64), torch.float64: (np.float64, torch.complex128)}


class _Kept:
    """What is known of one network."""

    def __init__(self, network: Network, rate: float) -> None:
        self.watch, self.rate, self.steps = Watch(network), rate, 0
        self.dtype = network.backbone.layers[0].D.dtype
        mixed = any(t.dtype not in (self.dtype, torch.int64) for t in network.parameters())
        self.plain = mixed or self.dtype not in _REAL  # only the plain way serves it
        self.net: CompiledNetwork | None = None
        self.left: _Left | None = None


_known: weakref.WeakKeyDictionary[Network, _Kept] = weakref.WeakKeyDictionary()


def quick_step(network: Network, x: Tensor, state: NetworkState, rate: float) -> tuple | None:
    """``(logits, layers, summary)`` as ``Network.step`` gives them, or None where the plain way must be taken.

    Raises:
        UserError: NaN or infinity in the sample, a state of another batch size.
    """
    if network.training or type(x) is not Tensor or x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    if torch._C._are_functorch_transforms_active() or torch.jit.is_tracing():
        return None
    kept, start = _known.get(network), state.summary is None or state.summary.count == 0
    if kept is None or kept.rate != rate or not kept.watch.unchanged(thoroughly=start and kept.steps > PATIENCE):
        try:
            _known[network] = _Kept(network, rate)
        except (RuntimeError, TypeError, AttributeError):  # weights on another device, without memory, or no numbers
            _known.pop(network, None)
        return None
    kept.steps += 1
    if kept.steps < PATIENCE or kept.plain:
        return None
    if kept.net is None:
        try:
            kept.net = CompiledNetwork(network, rate, _REAL[kept.dtype][0])
        except UserError:  # a part the loops do not compute: the plain way does, or says why not
            kept.plain = True
            return None
    return _run(kept, kept.net, x, state)


def _run(kept: _Kept, net: CompiledNetwork, x: Tensor, state: NetworkState) -> tuple | None:
    dtype, kernels, summary = kept.dtype, compiled_kernels(), state.summary
    if net.n_tokens is None:
        if x.dtype != dtype or x.ndim != 2 or x.shape[1] != net.d_input:
            return None
        given = x.detach() if x.requires_grad else x
        xs, ids = np.ascontiguousarray(given.numpy())[:, None], net._no_ids
    else:
        if x.ndim != 1 or x.dtype != torch.int64:
            return None
        xs, ids = net._no_numbers, x.contiguous().numpy()[:, None]
        if ids.size and not 0 <= ids.min() <= ids.max() < net.n_tokens:
            return None
    B, left = x.shape[0], kept.left  # read once, as other threads may stream through the same network
    blocks = left.blocks(state.layers, B) if left else None
    if blocks is None and (blocks := _blocks(net, state.layers, B, dtype)) is None:
        return None
    h, u = blocks
    total = np.zeros((B, net.d_model)) if summary is None else summary.value.numpy().astype(np.float64)
    if total.shape != u.shape[1:]:
        return None
    count = 0 if summary is None else summary.count
    out = np.empty((B, 1, net.d_output), net.dtype)
    if not kernels.advance_once(xs, ids, out, *net.packed, h, u, total, count):
        raise refuse_not_finite()
    after = None
    if not net.every_step:
        value = torch.from_numpy(total)
        after = Summary(value if net.mode == POOL else value.to(dtype), count + 1)
    kept.left = left = _Left(h, u)
    return torch.from_numpy(out[:, 0]), left.layers(), after


def _blocks(net: CompiledNetwork, layers: State, B: int, dtype: torch.dtype) -> tuple[NDArray, NDArray] | None:
    """The state of all layers in one block each, copied."""
    shape, kind = (B, net.d_model, net.n_modes), _REAL[dtype][1]
    modes, membranes = zip(*layers, strict=True)
    for m, u in layers:
        if type(u) is not Tensor or m.shape != shape or m.dtype != kind or u.shape != shape[:2] or u.dtype != dtype:
            check_rows(layers, B)
            return None
    if len(modes) != net.n_layers:
        return None
    with torch.no_grad():
        return torch.stack(modes).resolve_conj().numpy().view(net.dtype), torch.stack(membranes).numpy()


class _Left:
    """The state that the last step left: blocks ``h (n, B, H, 2N)``, ``u (n, B, H)``, handed out as a view a layer.

    When the very views come back, as they do from sample to sample, the blocks are copied at once, unchecked.
    """

    def __init__(self, h: NDArray, u: NDArray) -> None:
        self.h, self.u = h, u
        modes = h.view(np.complex64 if h.dtype == np.float32 else np.complex128)
        self.views = [torch.from_numpy(part) for pair in zip(modes, u, strict=True) for part in pair]
        self.addresses = list(map(Tensor.data_ptr, self.views))

    def layers(self) -> State:
        return list(zip(self.views[::2], self.views[1::2], strict=True))

    def blocks(self, layers: State, B: int) -> tuple[NDArray, NDArray] | None:
        """Copies of the blocks, if ``layers`` is this state: the same tensors, in the memory they had."""
        given: list[Any] = list(itertools.chain.from_iterable(layers))
        if self.u.shape[1] != B or len(given) != len(self.views) or not all(map(operator.is_, given, self.views)):
            return None
        if list(map(Tensor.data_ptr, given)) != self.addresses:
            return None
        return self.h.copy(), self.u.copy()
