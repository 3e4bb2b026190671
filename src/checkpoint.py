"""Reading checkpoints: plain data only, and one sentence where they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdn.errors import UserError
from sdn.named import require_allowed
from src.paths import resolve


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """A checkpoint of this loop, read with ``weights_only=True``.

    Raises:
        UserError: no such file, not a checkpoint, one of another program, or it names classes nobody vouches for.
    """
    found = resolve(path)
    if not found.is_file():
        raise UserError(f"checkpoint {found} does not exist; give the path of a .ckpt file")
    try:
        checkpoint = torch.load(found, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f"{found} is no checkpoint that can be read safely; it may be cut short or foreign") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "config", "shapes"} <= checkpoint.keys():
        raise UserError(f"{found} was not written by this training loop; give one of its checkpoints/*.ckpt")
    require_allowed(checkpoint["config"], found)
    return checkpoint


def load_pretrained(module: nn.Module, path: str | Path, strict: bool = True, ignore: Sequence[str] = ()) -> list[str]:
    """Copy the weights of a checkpoint into ``module``, leaving out names that contain one of ``ignore``.

    Returns the names that keep their fresh values. If ``strict`` these must all be ignored ones and the checkpoint
    must hold no others; weights of another shape are an error in any case unless ignored.

    Raises:
        UserError: the weights do not fit.
    """
    given = load_checkpoint(path)["state_dict"]
    weights = {name: value for name, value in given.items() if not any(part in name for part in ignore)}
    own = module.state_dict()
    wrong = [n for n, value in weights.items() if n in own and own[n].shape != value.shape]
    missing = [n for n in own if n not in weights]
    unknown = [n for n in weights if n not in own]
    surprising = [n for n in missing if not any(part in n for part in ignore)]
    for names, what in (
        (wrong, "other shapes"),
        (surprising if strict else [], "no values"),
        (unknown if strict else [], "no place"),
    ):
        if names:
            raise UserError(
                f"the weights in {path} do not fit this model: {what} for {', '.join(names[:3])}"
                f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}; see train.ignore_pretrained_layers"
                f" and train.pretrained_model_strict_load"
            )
    module.load_state_dict(weights, strict=False)
    return missing


def freeze_all_but_decoder(module: nn.Module) -> None:
    """Leave only parameters of the decoder trainable, and the statistics of batch norms elsewhere as they are."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("decoder" in name)
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and "decoder" not in name:
            part.eval()  # Lightning keeps the mode that modules have when the fit starts
