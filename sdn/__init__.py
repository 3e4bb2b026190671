"""One neuron: its equations, its fast kernels, and the surrogate dynamic network (SDN) that imitates it.

The names below load on first use, so that ``import sdn`` costs nothing; functions live in the modules
named after them (``sdn.fitting.reduce.reduce``, ``sdn.fitting.refine.refine``, ``sdn.ops.lif``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import Neuron
    from .errors import UserError
    from .network import SDN, ReducedSDN
    from .neurons import LIF, SDNNeuron, make_neuron
    from .version import __version__
    from .weights import load_reduced, pretrained_taus, save_reduced

__all__ = [
    "LIF",
    "SDN",
    "Neuron",
    "ReducedSDN",
    "SDNNeuron",
    "UserError",
    "__version__",
    "load_reduced",
    "make_neuron",
    "pretrained_taus",
    "save_reduced",
]
_HOME = {
    "contract": ("Neuron",),
    "errors": ("UserError",),
    "network": ("SDN", "ReducedSDN"),
    "neurons": ("LIF", "SDNNeuron", "make_neuron"),
    "version": ("__version__",),
    "weights": ("load_reduced", "pretrained_taus", "save_reduced"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
