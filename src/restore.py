"""A trained network and its data from a checkpoint, without the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from sdn.errors import UserError
from src.checkpoint import load_checkpoint
from src.dataloaders.base import SequenceData
from src.dataloaders.loading import LoaderOptions, Shard, make_loader
from src.module import SequenceModule
from src.registry import build


def restore(path: str | Path) -> tuple[SequenceModule, SequenceData]:
    """The module with the weights of ``path``, in evaluation mode, and its data family, prepared.

    Raises:
        UserError: no such checkpoint, a foreign one, one whose weights are NaN or infinite, or missing data.
    """
    checkpoint = load_checkpoint(path)
    refuse_nan(checkpoint["state_dict"], path)
    data = build("dataset", checkpoint["config"]["dataset"])
    data.prepare()
    data.setup()
    module = SequenceModule(checkpoint["config"], data)
    module.load_state_dict(checkpoint["state_dict"])
    return module.eval(), data


def refuse_nan(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise :class:`UserError` if a weight is NaN or infinite: nothing such a network says means anything."""
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"the weights {name} in {path} are NaN or infinite: the training went wrong before this was saved; "
                "take an earlier checkpoint, or train with a lower optimizer.lr"
            )


def batches(
    module: SequenceModule,
    data: SequenceData,
    split: str,
    batch_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Iterable[tuple[Tensor, Tensor, dict[str, Any]]]:
    """The batches of a split ("val" or "test") by which the network is judged, in order.

    Args:
        limit: this many samples, drawn at random by ``seed`` so that all classes are among them (many sets are stored
            class by class); a text, which is no set of samples, is read from its beginning instead.
    """
    options = dict(module.config["loader"])
    if batch_size is not None:
        options["eval_batch_size"] = batch_size
    loaders = LoaderOptions(**options)
    stream = type(data).eval_loaders is not SequenceData.eval_loaders
    if limit is None or stream:
        return data.eval_loaders(split, loaders, Shard(0, 1))[split]
    dataset, collate = data.views(split)[split]
    drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:limit]
    some = Subset(dataset, drawn.sort().values.tolist())
    return make_loader(some, collate, replace(loaders, eval_drop_last=False), Shard(0, 1), train=False)
