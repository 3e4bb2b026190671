"""Parameter groups: which parameters get which learning rate and weight decay.

Rules, applied to the backbone alone (encoder, decoder and task follow the optimizer's own values):

1. every bias and every parameter of a normalisation or embedding has weight decay 0;
2. a module may say what its own parameters want, ``optim_options() -> {"name": {"lr": ..., "weight_decay": ...}}``
   (:class:`sdn.Neuron` and the SSM kernel do), or a parameter may carry such a mapping as ``_optim``, which a copy of
   the module loses; values left out are the optimizer's own. Rule 1 wins where both apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from src.registry import build

NO_DECAY = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all kinds
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.Embedding,
)


def own_values(backbone: nn.Module) -> dict[nn.Parameter, dict[str, float]]:
    """The ``lr`` and ``weight_decay`` that single parameters of the backbone want for themselves."""
    values: dict[nn.Parameter, dict[str, float]] = {}
    for module in backbone.modules():
        said = module.optim_options() if hasattr(module, "optim_options") else {}
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias") or isinstance(module, NO_DECAY):
                values[parameter] = {"weight_decay": 0.0}
            elif own := said.get(name) or getattr(parameter, "_optim", None):
                values[parameter] = {key: float(value) for key, value in own.items() if value is not None}
    return values


def parameter_groups(
    parameters: Iterable[nn.Parameter], backbone: nn.Module, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters grouped by what they want for themselves: "main" (nothing) first, then in a fixed order."""
    own = own_values(backbone)
    groups: dict[tuple[tuple[str, float], ...], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            groups.setdefault(tuple(sorted(own.get(parameter, {}).items())), []).append(parameter)
    return [
        {
            "params": groups[want],
            "name": ",".join(f"{key}={value:g}" for key, value in want) or "main",
            **{"lr": lr, "weight_decay": weight_decay, **dict(want)},
        }
        for want in sorted(groups)
    ]


def make_optimizer(config: Mapping[str, Any], model: nn.Module, backbone: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of an ``optimizer`` config over all trainable parameters of ``model``, grouped by the rules."""
    groups = parameter_groups(model.parameters(), backbone, config["lr"], config.get("weight_decay", 0.0))
    return build("optimizer", config, groups)
