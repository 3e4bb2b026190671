"""Event-driven inference of a causal SpikingSSM on one CPU core.

A spike train needs no matrix product: the mix after the neurons is the sum of the weight columns of the channels that
fired, so its cost is proportional to the firing rate. Everything else of a step is fused around it in compiled code:
state update, neuron, GLU, norm (batch norm folded to one scale and shift) and residual, without allocation.

The result equals ``model.step`` up to rounding; the neuron is the exact recurrence, also where an SDN was trained with.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sdn.errors import UserError

from .constants import NORMS, float_type, step_constants
from .gate import as_array, finite_array, refuse_not_finite
from .ssm import SpikingSSM
from .state import State


class EventEngine:
    """One stream through a trained network.

    ``step(x (H,)) -> y (H,)`` for a sample, ``run(x (L, H)) -> y (L, H)`` for a block, both continuing the state.

    Args:
        model: a causal :class:`SpikingSSM`; its weights are copied, so later training does not reach the engine.
        dtype: numpy float type of weights, state and arithmetic; float32 or float64.
        rate: the sampling step of the stream in units of the training data's.

    Raises:
        UserError: the model is bidirectional, its neurons are not of the kind that the engine computes, or numba is
            not installed.
    """

    def __init__(self, model: SpikingSSM, dtype: type = np.float32, rate: float = 1.0) -> None:
        try:
            from . import event_kernels
        except ImportError as error:
            raise UserError("the event-driven engine is compiled by numba; pip install numba") from error
        if not isinstance(model, SpikingSSM):
            raise UserError(f"the event-driven engine runs a models.spike.SpikingSSM, not {type(model).__name__}")
        self._advance, self._finite = event_kernels.advance, event_kernels.finite
        self.dtype = float_type(dtype)
        constants = step_constants(model, "event_engine", rate)
        H = model.d_model
        drive = constants.drive
        self._ssm = tuple(
            self._array(x) for x in (constants.A.real, constants.A.imag, drive.real, drive.imag, constants.D)
        )
        self._B = constants.B.cpu().to(torch.complex128).numpy()
        self._soft = constants.soft
        self._neuron = self._array(constants.tau), self._array(constants.u_r)
        self._mix = self._array(constants.weight.transpose(1, 2)), self._array(constants.bias)
        norms = constants.norms
        self._norm_kind = NORMS[norms[0].kind]
        self._norm = (
            self._array(torch.stack([norm.scale for norm in norms])),
            self._array(torch.stack([norm.shift for norm in norms])),
            np.array([norms[0].eps], self.dtype),
        )
        self._prenorm = model.prenorm
        n, _, modes = self._ssm[0].shape
        self._state = (*(np.zeros((n, H, modes), self.dtype) for _ in range(2)), np.zeros((n, H), self.dtype))
        self._work = (
            np.zeros(H, self.dtype),
            np.zeros(H, self.dtype),
            np.zeros(2 * H, self.dtype),
            np.zeros(H, np.int32),
            np.ones(1, self.dtype),
        )
        self._out = np.zeros((1, H), self.dtype)
        self.d_model, self.n_layers = H, n
        self.reset()

    def _array(self, tensor: torch.Tensor) -> NDArray:
        return np.ascontiguousarray(tensor.cpu().numpy(), self.dtype)

    def reset(self) -> None:
        """Start again from the zero state, and count spikes from zero."""
        for array in self._state:
            array.fill(0)
        self.steps, self.spikes = 0, np.zeros(self.n_layers, np.int64)

    def step(self, x: ArrayLike | torch.Tensor) -> NDArray:
        """One sample ``(H,)`` -> ``(H,)``; the result is a buffer that the next step overwrites."""
        sample = self._checked(x)
        if sample.shape not in ((self.d_model,), (1, self.d_model)):
            raise UserError(f"the engine takes samples of shape ({self.d_model},), not {sample.shape}")
        self._call(sample.reshape(1, self.d_model), self._out)
        return self._out[0]

    def run(self, x: ArrayLike | torch.Tensor) -> NDArray:
        """A block of samples ``(L, H)`` -> ``(L, H)``, the state carried on as by L steps."""
        block = self._checked(x)
        if block.ndim != 2 or block.shape[1] != self.d_model:
            raise UserError(f"the engine takes blocks of shape (L, {self.d_model}), not {block.shape}")
        out = np.empty_like(block)
        self._call(block, out)
        return out

    def _checked(self, x: ArrayLike | torch.Tensor) -> NDArray:
        return finite_array(as_array(x), self.dtype, self._finite)

    def _call(self, xs: NDArray, ys: NDArray) -> None:
        self._advance(
            xs,
            ys,
            self._ssm,
            self._neuron,
            self._soft,
            self._mix,
            self._norm,
            self._norm_kind,
            self._prenorm,
            self._state,
            self._work,
            self.spikes,
        )
        self.steps += len(xs)

    @property
    def firing_rates(self) -> NDArray:
        """Spikes per channel and step of each layer, ``(n_layers,)``, since the last reset."""
        return self.spikes / max(self.steps * self.d_model, 1)

    def load_state(self, state: State) -> None:
        """Continue from a state of the model (one row), such as the one after a prefix run in parallel.

        The modes of the engine hold h / B, since B is folded into C.
        """
        try:
            layers = [(modes, membrane) for modes, membrane in state if isinstance(membrane, torch.Tensor)]
            shapes = [(tuple(modes.shape), tuple(membrane.shape)) for modes, membrane in layers]
        except (TypeError, ValueError, AttributeError):  # no state at all
            layers, shapes = [], []
        H = self.d_model
        if shapes != [((1, H, self._state[0].shape[2]), (1, H))] * self.n_layers:
            raise UserError("the engine holds one stream; give a state of batch 1 of the same network")
        if not all(bool(torch.isfinite(part).all()) for layer in layers for part in layer):
            raise refuse_not_finite("a number in the state")
        for n, (modes, membrane) in enumerate(layers):
            h = modes[0].detach().cpu().numpy() / self._B[n]
            self._state[0][n], self._state[1][n] = h.real, h.imag
            self._state[2][n] = membrane[0].detach().cpu().numpy()
