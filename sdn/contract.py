"""What a neuron is to the rest of the house, and what it may be asked for.

A class of one's own needs a :meth:`Neuron.step`; it then trains (one Python step per time step), streams and is saved
with its network. Everything else is an override for speed or for engines that know this neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .errors import UserError

NeuronState: TypeAlias = Tensor | tuple[Tensor, ...]
"""What a neuron remembers: one tensor or several (or none), each ``(B, ...)``, zero before the first sample."""

_WHY = {
    "streams": "cannot run sample by sample: it has no step",
    "event_engine": "cannot run in the event engine, which computes leaky integrate-and-fire neurons (sdn, sltt, bptt)",
    "onnx": "cannot be exported to ONNX, which is written for leaky integrate-and-fire neurons (sdn, sltt, bptt)",
    "nir": "cannot be exported to NIR, which has a node for leaky integrate-and-fire neurons (sdn, sltt, bptt)",
}


class Neuron(nn.Module):
    """Currents ``(B, H, L)`` to what a layer sends on, ``(B, H, L)``: spikes in {0, 1}, or graded values.

    A subclass gives :meth:`step`, differentiable, in units of the threshold::

        class Mine(Neuron):
            binary = True

            def step(self, current, u, v_th=None):
                u = 0.9 * u + self.scaled(current, v_th)
                s = spike(u - 1)                                  # sdn.surrogate.spike
                return s, u - s.detach()

    With more than one number a channel to remember, :meth:`initial_state` gives a tuple of zeros. The constructor
    may take ``d_model`` (channels H) and any options that a config can hold; all are checked against its signature.
    In a config: ``model.layer.neuron={_name_: package.module.Mine, option: value}``.

    Attributes:
        binary: every output is 0 or 1, so spikes may be kept in a byte each. False also where values are graded.
        threshold: a learnable threshold makes sense: a layer divides the current by it.
        any_layout: forward is as quick on a current that lies channels last in memory, and answers in that layout;
            others are given contiguous ones.
        streams, event_engine, onnx, nir: what it can do; what it cannot is refused by :func:`require`. The last three
            need :meth:`constants`.
    """

    binary: bool = False
    threshold: bool = True
    any_layout: bool = False
    streams: bool = True
    event_engine: bool = False
    onnx: bool = False
    nir: bool = False

    def step(self, current: Tensor, state: Any, v_th: Tensor | None = None) -> tuple[Tensor, Any]:
        """One step: ``(I_t (B, H), state, v_th (H,) or None for 1) -> (s_t (B, H), state)``."""
        raise NotImplementedError(f"{type(self).__name__} must define step(current, state, v_th)")

    def initial_state(
        self, batch: int, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Any:
        """The state before the first sample: zeros, here one ``(B, H)``. Rows of a stream start again by zeroing it."""
        return torch.zeros(batch, channels, device=device, dtype=dtype)

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        """``I (B, H, L)``, ``v_th (H,)`` -> ``s (B, H, L)`` of the type of I, with gradients; step by step here."""
        return self._unroll(current, None, v_th)[0]

    @torch.no_grad()
    def scan(self, current: Tensor, state: Any = None, v_th: Tensor | None = None) -> tuple[Tensor, Any]:
        """``s (B, H, L)`` and the state after it, from ``state`` (None: the start); no gradient."""
        return self._unroll(current, state, v_th)

    def constants(self) -> tuple[float | Tensor, float | Tensor, str]:
        """``(tau, u_r, reset)`` of a leaky integrate-and-fire neuron, for whoever runs it elsewhere."""
        raise UserError(f"{type(self).__name__} is no leaky integrate-and-fire neuron: it has no tau, u_r and reset")

    def optim_options(self) -> Mapping[str, Mapping[str, float | None]]:
        """``{"name": {"lr": ..., "weight_decay": ...}}`` for own parameters that want other values than the rest."""
        return {}

    def scaled(self, current: Tensor, v_th: Tensor | None) -> Tensor:
        """The current ``(B, H)`` or ``(B, H, L)`` in units of the threshold; in float32 at least.

        Raises:
            UserError: a threshold that is not above 0, or not one a channel.
        """
        x = current if current.dtype == torch.float64 else current.float()
        if v_th is None:
            return x
        H = current.shape[-1 if current.ndim == 2 else -2]
        if v_th.ndim > 1 or v_th.numel() not in (1, H):
            raise UserError(f"a threshold per channel has shape ({H},) for {H} channels, not {tuple(v_th.shape)}")
        v_th = check_threshold(v_th).to(x.device)
        return x / (v_th if current.ndim == 2 else v_th.unsqueeze(-1))

    def check_current(self, current: Tensor) -> None:
        """Raise :class:`UserError` unless ``current`` is ``(B, H, L)`` of a float type."""
        if current.ndim != 3 or not current.is_floating_point():
            raise UserError(
                f"a neuron takes currents (batch, channels, time) of a float type, not {current.dtype} "
                f"{tuple(current.shape)}"
            )

    def check_state(self, current: Tensor, state: Any) -> None:
        """Raise :class:`UserError` unless ``state`` has the rows of ``current (B, ...)``: others would be broadcast."""
        for part in state if isinstance(state, (tuple, list)) else (state,):
            if isinstance(part, Tensor) and part.shape[:1] != current.shape[:1]:
                raise UserError(
                    f"the neuron's state is of {len(part) if part.ndim else 'no'} rows and the current of "
                    f"{len(current)}; make one with initial_state({len(current)}, ...)"
                )

    def _unroll(self, current: Tensor, state: Any, v_th: Tensor | None) -> tuple[Tensor, Any]:
        return self._over_time(current, state, None, lambda i_t, state: self.step(i_t, state, v_th))

    def _over_time(
        self,
        current: Tensor,
        state: Any,
        v_th: Tensor | None,
        step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    ) -> tuple[Tensor, Any]:
        """``step`` at every time step of the current, divided by ``v_th`` if there is one."""
        self.check_current(current)
        x = current if v_th is None else self.scaled(current, v_th)
        if state is None:
            real = torch.float64 if current.dtype == torch.float64 else torch.float32
            state = self.initial_state(current.shape[0], current.shape[1], device=current.device, dtype=real)
        self.check_state(current, state)
        out = []
        for x_t in x.unbind(-1):
            s, state = step(x_t, state)
            out.append(s)
        return (torch.stack(out, -1).to(current.dtype) if out else torch.empty_like(current)), state


def require(neuron: nn.Module, *abilities: str) -> None:
    """Refuse a neuron, or any module that stands where one should, that lacks one of ``abilities``.

    Raises:
        UserError: one sentence that says what cannot be done with it.
    """
    for ability in abilities:
        if not getattr(neuron, ability, False):
            raise UserError(f"the neuron {type(neuron).__name__} {_WHY[ability]}")


def check_threshold(v_th: Tensor) -> Tensor:
    """Return ``v_th``, or raise :class:`UserError` where one is not above 0: currents are divided by it."""
    if torch.compiler.is_compiling() or v_th.is_meta or (v_th.is_cuda and torch.cuda.is_current_stream_capturing()):
        return v_th
    if not bool((v_th > 0).all()):
        raise UserError("a threshold v_th must be above 0; learn its logarithm, v_th = exp(ln_vth), as SS4D does")
    return v_th
