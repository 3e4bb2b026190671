"""Checkpoints of the SDN fit: plain tensors, numbers and strings, written atomically, loaded with ``weights_only``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..checksum import damaged_archive, seal_archive
from ..errors import UserError
from ..files import atomic_path
from ..lif import check_tau
from ..network import SDN
from .archive import read_archive

FORMAT, VERSION = "sdn-checkpoint", 1
_SIZES = ("d_model", "kernel_size", "n_layers")


def save_checkpoint(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write ``content`` with the format's name and version."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, "version": VERSION} | content, temporary)
        seal_archive(temporary)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        UserError: missing, unreadable, damaged or foreign file.
    """
    if Path(path).is_file() and (damage := damaged_archive(path)) is not None:
        raise UserError(f"{path} is truncated or damaged: {damage}; name a whole checkpoint, or fit again")
    content = read_archive(path, "a checkpoint that train.py --training wrote")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of an SDN fit; name a file that train.py --training wrote")
    if content.get("version") != VERSION:
        raise UserError(f"{path} has checkpoint version {content.get('version')}, this code reads {VERSION}; fit again")
    return content


def load_sdn(path: str | os.PathLike[str]) -> tuple[SDN, float, dict[str, Any]]:
    """``(network in evaluation mode, tau, content)`` of a checkpoint.

    Raises:
        UserError: as :func:`load_checkpoint`, or weights that do not fit the sizes beside them.
    """
    content = load_checkpoint(path)
    try:
        sdn = SDN(**{name: content["config"][name] for name in _SIZES})
        sdn.load_state_dict(content["model"])
        tau = check_tau(content["tau"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: its weights do not fit the network it describes") from error
    return sdn.eval(), tau, content
