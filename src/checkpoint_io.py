"""How the trainer writes and reads checkpoints: whole files only, on the file system they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from sdn.files import atomic_path
from src.checkpoint import load_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush to the disk, rename; read with every checksum compared.

    Lightning's own stages a checkpoint in ``$TMPDIR`` and moves it: between file systems that is a copy over the only
    good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``, atomically."""
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """See :func:`src.checkpoint.load_checkpoint`."""
        return load_checkpoint(path)
