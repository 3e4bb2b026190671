"""The architecture. ``models.spike.load(path)`` gives a saved network back; the parts are imported when first used."""

from __future__ import annotations

import importlib

_HOMES = {
    "load": "network",
    "save": "network",
    "Network": "network",
    "SpikingSSM": "ssm",
    "SS4D": "ss4d",
    "EventEngine": "event",
    "StreamEngine": "stream",
    "export_onnx": "export",
    "export_parallel": "export",
    "to_nir": "nir_export",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
