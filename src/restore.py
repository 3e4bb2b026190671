"""A trained network and its data from a checkpoint, without the trainer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from src.checkpoint import load_checkpoint
from src.dataloaders.base import SequenceData
from src.dataloaders.loading import LoaderOptions, Shard
from src.module import SequenceModule
from src.registry import build


def restore(path: str | Path) -> tuple[SequenceModule, SequenceData]:
    """The module with the weights of ``path``, in evaluation mode, and its data family, prepared.

    Raises:
        UserError: no such checkpoint, a foreign one, or missing data.
    """
    checkpoint = load_checkpoint(path)
    data = build("dataset", checkpoint["config"]["dataset"])
    data.prepare()
    data.setup()
    module = SequenceModule(checkpoint["config"], data)
    module.load_state_dict(checkpoint["state_dict"])
    return module.eval(), data


def batches(
    module: SequenceModule, data: SequenceData, split: str, batch_size: int | None = None
) -> Iterable[tuple[Tensor, Tensor, dict[str, Any]]]:
    """The batches of a split ("val" or "test") by which the network is judged, in order."""
    options = dict(module.config["loader"])
    if batch_size is not None:
        options["eval_batch_size"] = batch_size
    return data.eval_loaders(split, LoaderOptions(**options), Shard(0, 1))[split]
