"""The neurons a config can name, and the paper's as modules: three ways to obtain the membrane potential.

``neuron(I, v_th)`` maps a current ``(B, H, L)`` to spikes ``(B, H, L)`` in {0, 1};
``neuron.step(I_t, u, v_th)`` maps ``(B, H)`` to ``(s_t, u_t)`` by the exact recurrence, also for the SDN.
The contract that every neuron keeps is :class:`sdn.contract.Neuron`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .contract import Neuron
from .errors import UserError
from .lif import GRADIENTS, Gradient, Reset, check_reset, check_tau, lif_step
from .named import resolve, suggestion
from .network import ReducedSDN
from .surrogate import Surrogate, make_surrogate

_OTHERS = {
    "alif": "alif.ALIF",
    "gelu": "gelu.GELU",
    "resonate": "resonate.ResonateAndFire",
    "sliding_psn": "sliding_psn.SlidingPSN",
}
NEURONS: tuple[str, ...] = ("sdn", *GRADIENTS, *_OTHERS)
"""The words for a neuron."""

_LEAST = 1e-6
"""How near a learnt tau may come to 0 or 1, where a sigmoid in float32 would round to them."""


class _Exact(Neuron):
    """What the leaky integrate-and-fire neurons share: steps and scans by the exact recurrence, in every engine."""

    binary = event_engine = onnx = nir = True

    def __init__(self, tau: float, surrogate: Surrogate) -> None:
        super().__init__()
        self._tau, self.surrogate = check_tau(tau), surrogate

    @property
    def tau(self) -> float | Tensor:
        """Decay per step: a number, or ``(H,)`` where it is learnt."""
        return self._tau

    def constants(self) -> tuple[float | Tensor, float | Tensor, Reset]:
        """``(tau, u_r, reset)`` of the exact recurrence, for whoever runs it elsewhere."""
        return self.tau, 0.0, "hard"

    @torch.no_grad()
    def step(self, current: Tensor, u: Tensor, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One exact step without gradient: ``(I_t, u_{t-1}) -> (s_t, u_t)``, all ``(B, H)``."""
        self.check_state(current, u)
        return lif_step(current if v_th is None else self.scaled(current, v_th), u, *self.constants())

    def scan(self, current: Tensor, u0: Tensor | None = None, v_th: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Exact spikes ``(B, H, L)`` and the potential ``(B, H)`` after them, from ``u0``; no gradient."""
        self.check_state(current, u0)
        tau, u_r, reset = self.constants()
        return ops.lif_scan(current, u0, tau, v_th, u_r, reset)

    def extra_repr(self) -> str:
        name, width = self.surrogate
        return f"tau={self._tau:g}, surrogate={name}, width={width:g}"


class LIF(_Exact):
    """The exact neuron with gradient "sltt" (elementwise) or "bptt" (through time).

    Args:
        tau: decay per step, or its value before training.
        gradient: "sltt" or "bptt".
        reset: "hard" to ``u_r``, or "soft" by subtraction of the threshold.
        u_r: reset value in units of the threshold, below 1; or its value before training.
        learnable_tau: learn a decay per channel, sigmoid(``logit_tau`` (H,)), so that it stays between 0 and 1.
        learnable_u_r: learn a reset value per channel, the parameter ``reset_value`` (H,).
        d_model: channels H; needed where something is learnt.
        surrogate, width: the surrogate gradient and its width in thresholds (:mod:`sdn.surrogate`).

    Raises:
        UserError: an option out of range, or a combination in which nothing could be learnt.
    """

    def __init__(
        self,
        tau: float = 0.125,
        gradient: Gradient = "sltt",
        reset: Reset = "hard",
        u_r: float = 0.0,
        learnable_tau: bool = False,
        learnable_u_r: bool = False,
        d_model: int | None = None,
        surrogate: str = "triangle",
        width: float | None = None,
    ) -> None:
        super().__init__(tau, make_surrogate(surrogate, width))
        if gradient not in GRADIENTS:
            raise UserError(f"unknown gradient {gradient!r}; choose sltt or bptt")
        if isinstance(u_r, bool) or not isinstance(u_r, (int, float)) or not u_r < 1.0:
            raise UserError(f"the reset value u_r counts in thresholds and must lie below 1, not {u_r}")
        if check_reset(reset) == "soft" and (u_r != 0.0 or learnable_u_r):
            raise UserError(
                "a soft reset subtracts the threshold and has no reset value u_r; choose reset hard for one"
            )
        if learnable_u_r and gradient != "bptt":
            raise UserError("sltt gives the reset value u_r no gradient; choose neuron bptt to learn it")
        self.gradient, self.reset, self._u_r = gradient, reset, float(u_r)
        self.logit_tau = _per_channel(d_model, math.log(tau / (1 - tau))) if learnable_tau else None
        self.reset_value = _per_channel(d_model, float(u_r)) if learnable_u_r else None
        for parameter in self.parameters():
            # for the loop of state-spaces/s4; a copy of the module loses it
            parameter._optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    @property
    def tau(self) -> float | Tensor:
        return self._tau if self.logit_tau is None else torch.sigmoid(self.logit_tau).clamp(_LEAST, 1 - _LEAST)

    @property
    def u_r(self) -> float | Tensor:
        """Reset value in units of the threshold: a number, or ``(H,)`` where it is learnt."""
        return self._u_r if self.reset_value is None else self.reset_value

    def constants(self) -> tuple[float | Tensor, float | Tensor, Reset]:
        return self.tau, self.u_r, self.reset

    def optim_options(self) -> dict[str, dict[str, float]]:
        return {"logit_tau": {"weight_decay": 0.0}, "reset_value": {"weight_decay": 0.0}}

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        """``I (B, H, L)``, ``v_th (H,)`` -> spikes."""
        tau, u_r, reset = self.constants()
        return ops.lif(current, tau, v_th, u_r, reset, self.gradient, self.surrogate)

    def extra_repr(self) -> str:
        learnt = [name for name, p in (("tau", self.logit_tau), ("u_r", self.reset_value)) if p is not None]
        start = f"{super().extra_repr()}, gradient={self.gradient}, reset={self.reset}, u_r={self._u_r:g}"
        return start + (f", learnt: {', '.join(learnt)}" if learnt else "")


def _per_channel(d_model: int | None, value: float) -> nn.Parameter:
    if d_model is None:
        raise UserError("a learnable tau or u_r is one per channel; give the number of channels, d_model")
    return nn.Parameter(torch.full((d_model,), value))


class SDNNeuron(_Exact):
    """The paper's neuron: mem from a frozen :class:`sdn.network.ReducedSDN`, s = H(mem + I - 1)."""

    def __init__(self, sdn: ReducedSDN, surrogate: str = "triangle", width: float | None = None) -> None:
        super().__init__(sdn.tau, make_surrogate(surrogate, width))
        self.sdn = sdn

    def forward(self, current: Tensor, v_th: Tensor | None = None) -> Tensor:
        """``I (B, H, L)``, ``v_th (H,)`` -> spikes."""
        return ops.surrogate(current, self.sdn, v_th, self.surrogate)


def make_neuron(
    name: str | Mapping[str, Any],
    tau: float = 0.125,
    weights: str | os.PathLike[str] | ReducedSDN | None = None,
    reset: Reset = "hard",
    u_r: float = 0.0,
    learnable_tau: bool = False,
    learnable_u_r: bool = False,
    d_model: int | None = None,
    surrogate: str = "triangle",
    width: float | None = None,
) -> Neuron:
    """Build the neuron a config names.

    Args:
        name: a word of :data:`NEURONS`, or a mapping ``{_name_: word or package.module.Class, option: value}``; the
            class derives from :class:`sdn.Neuron`, which is checked before it is called, and gets ``d_model`` if its
            constructor takes it.
        weights: for "sdn": a reduced SDN file, or the network itself; None for the shipped one of ``tau``.
        tau, reset, u_r, learnable_tau, learnable_u_r, surrogate, width: of sdn, sltt and bptt named by a word, as in
            :class:`LIF`; an SDN is fitted for one tau and hard reset to 0. Other neurons take theirs in the mapping.
        d_model: channels H.

    Raises:
        UserError: unknown name, an option unknown or out of range, an SDN fitted for another tau or asked for what it
            cannot do.
    """
    for gradient in GRADIENTS:
        if name == gradient:
            return LIF(tau, gradient, reset, u_r, learnable_tau, learnable_u_r, d_model, surrogate, width)
    if name == "sdn":
        if check_reset(reset) != "hard" or u_r != 0.0 or learnable_tau or learnable_u_r:
            raise UserError(
                "an SDN is fitted for one tau and hard reset to 0; choose neuron sltt or bptt for anything else"
            )
        return _fitted(tau, weights, surrogate, width)
    options: dict[str, Any] = {}
    if isinstance(name, Mapping):
        options = {str(key): value for key, value in name.items()}
        if "_name_" not in options:
            raise UserError(f"a neuron given as a mapping needs its _name_{suggestion('', NEURONS)}")
        name = options.pop("_name_")
    target = _target(name)
    beside: dict[str, object] = {"tau": tau, "sdn": weights, "surrogate": surrogate, "width": width}
    beside |= {"reset": reset, "u_r": u_r, "learnable_tau": learnable_tau, "learnable_u_r": learnable_u_r}
    _refuse_lost(str(name), beside)
    return _build(str(name), target, options, d_model)


def _fitted(
    tau: float = 0.125,
    sdn: str | os.PathLike[str] | ReducedSDN | None = None,
    surrogate: str = "triangle",
    width: float | None = None,
) -> SDNNeuron:
    from .weights import load_reduced

    network = sdn if isinstance(sdn, ReducedSDN) else load_reduced(check_tau(tau) if sdn is None else sdn, tau=tau)
    return SDNNeuron(network, surrogate, width)


_LIF: dict[str, Callable[..., Neuron]] = {
    "sdn": _fitted,
    "sltt": functools.partial(LIF, gradient="sltt"),
    "bptt": functools.partial(LIF, gradient="bptt"),
}


def _target(name: object) -> Callable[..., Neuron]:
    if not isinstance(name, str) or (name not in NEURONS and "." not in name):
        raise UserError(f"unknown neuron {name!r}; choose one of {', '.join(NEURONS)}, or a class package.module.Class")
    if name in _LIF:
        return _LIF[name]
    if name in _OTHERS:
        module, _, attribute = _OTHERS[name].partition(".")
        return getattr(importlib.import_module(f".kinds.{module}", __package__), attribute)
    return resolve(name, Neuron, "neuron")


def _build(name: str, target: Callable[..., Neuron], options: dict[str, Any], d_model: int | None) -> Neuron:
    parameters = inspect.signature(target).parameters
    names = set(parameters) - {"d_model", *getattr(target, "keywords", {})}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in options:
            if key not in names:
                raise UserError(f"the neuron {name} has no option {key!r}{suggestion(key, names)}")
    if "d_model" in parameters:
        options = {"d_model": d_model, **options}
    try:
        return target(**options)
    except TypeError as error:
        raise UserError(f"the neuron {name} cannot be built from its options: {error}") from error


def _refuse_lost(name: str, given: Mapping[str, object]) -> None:
    """Options beside a neuron's name are those of sdn, sltt and bptt; for others none must be lost in silence."""
    defaults = inspect.signature(make_neuron).parameters
    if changed := [key for key, value in given.items() if value != defaults[_PARAMETER.get(key, key)].default]:
        raise UserError(
            f"{', '.join(changed)} beside the neuron {name} would be ignored; give the neuron its options in one "
            f"mapping, neuron={{_name_: {name}, option: value}}"
        )


_PARAMETER = {"sdn": "weights"}
