"""Reading checkpoints: plain data only, whole or not at all, and one sentence where they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdn.checksum import damaged_archive
from sdn.errors import UserError
from sdn.named import require_allowed
from src.meaning import rows_by_token
from src.paths import resolve

if TYPE_CHECKING:
    from src.module import SequenceModule

PREVIOUS = "previous.ckpt"


class TornCheckpointError(UserError):
    """The file is there, and is not what was written."""


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """A checkpoint of this loop, read with ``weights_only=True``, its checksums compared.

    Raises:
        UserError: no such file, cut short or changed, one of another program, or it names classes nobody vouches for.
            Where a whole one lies beside a torn one it is named.
    """
    found = resolve(path)
    if not found.is_file():
        what = "is a folder; give a .ckpt file in it" if found.is_dir() else "does not exist; give the path of a .ckpt"
        raise UserError(f"checkpoint {found} {what}{'' if found.is_dir() else ' file'}")
    try:
        with found.open("rb"):  # a file that may not be read is told as that
            pass
        if (damage := damaged_archive(found)) is not None:
            raise TornCheckpointError(f"checkpoint {found} is torn or foreign: {damage}{_another(found)}")
        checkpoint = torch.load(found, map_location=map_location, weights_only=True)
    except OSError as error:
        raise UserError(f"checkpoint {found} cannot be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        raise TornCheckpointError(
            f"checkpoint {found} cannot be read safely; it is damaged or foreign{_another(found)}"
        ) from error
    wanted = {"state_dict": dict, "config": dict, "shapes": dict}
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(k), t) for k, t in wanted.items()):
        raise UserError(f"{found} was not written by this training loop; give one of its checkpoints/*.ckpt")
    require_allowed(checkpoint["config"], found)
    return checkpoint


def _another(torn: Path) -> str:
    """``; PATH beside it is whole``: the newest checkpoint of the same folder that can be used instead."""
    for path in candidates(torn.parent):
        if path != torn and damaged_archive(path) is None:
            return f"; {path} is whole and the newest one beside it"
    return ""


def candidates(folder: Path) -> list[Path]:
    """The checkpoints in a folder in the order in which to go on from them: the last, the one before, the best."""
    first = [folder / "last.ckpt", folder / PREVIOUS]
    others = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in first if path.is_file()] + [path for path in others if path not in first]


def newest_whole(folders: Iterable[Path]) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint of the first of ``folders`` that has a whole one, and the torn ones passed over."""
    torn: list[Path] = []
    for folder in folders:
        for path in candidates(folder):
            try:
                load_checkpoint(path)
            except TornCheckpointError:
                torn.append(path)
            else:
                return path, torn
    return None, torn


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """``module.load_state_dict(weights)``.

    Raises:
        UserError: the weights are not those of such a network; it says which differ first.
    """
    if (difference := misfit(module.state_dict(), weights)) is not None:
        raise UserError(
            f"the weights in {source} do not fit the network that the configuration describes: {difference}"
        )
    module.load_state_dict(weights)


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> str | None:
    """Where two sets of tensors differ in names or shapes, in words; None if they do not."""
    for what, names in (
        ("is missing", [name for name in own if name not in given]),
        ("has no place", [name for name in given if name not in own]),
    ):
        if names:
            return f"{names[0]} {what}" + (f", and {len(names) - 1} more" if len(names) > 1 else "")
    for name, value in own.items():
        if not isinstance(given[name], Tensor):
            return f"{name} is no tensor"
        if given[name].shape != value.shape:
            return f"{name} is {tuple(given[name].shape)} there and would be {tuple(value.shape)}"
    return None


def load_pretrained(
    module: SequenceModule, path: str | Path, strict: bool = True, ignore: Sequence[str] = ()
) -> list[str]:
    """Copy the weights of a checkpoint into ``module``, leaving out names that contain one of ``ignore``; rows of token
    embeddings go by token where the two vocabularies differ (:mod:`src.meaning`).

    Returns the names that keep their fresh values. If ``strict`` these must all be ignored ones and the checkpoint
    must hold no others; weights of another shape are an error in any case unless ignored.

    Raises:
        UserError: the weights do not fit.
    """
    checkpoint = load_checkpoint(path)
    given = checkpoint["state_dict"]
    weights = {name: value for name, value in given.items() if not any(part in name for part in ignore)}
    trained = checkpoint.get("facts", {})
    weights = rows_by_token(module, weights, trained.get("tokens"), module.facts().get("tokens"), path)
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
