"""What ``faithful=true`` does not restore by itself: the weights of the released SDN, which are not ours to ship."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdn.weights import load_reduced


def notice(config: Mapping[str, Any]) -> str | None:
    """A sentence for the log that says whose SDN a faithful run uses; None for any other run, or without an SDN.

    Raises:
        UserError: ``model.layer.sdn`` is no file of an SDN.
    """
    layer = config["model"].get("layer") or {}
    if not config["faithful"] or layer.get("neuron", "sdn") != "sdn":
        return None
    tau = layer.get("tau")
    if not layer.get("sdn"):
        return (
            f"faithful=true: the schedules and mistakes of the released code, but the SDN for tau {tau} is ours, "
            "fitted anew; for the released one give its file, model.layer.sdn=..._125.pkl"
        )
    source = str(load_reduced(layer["sdn"]).meta.get("source", ""))
    whose = "the released one" if source.startswith("released network") else "yours"
    return f"faithful=true: the schedules and mistakes of the released code; the SDN in {layer['sdn']} is {whose}"
