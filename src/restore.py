"""A trained network and its data from a checkpoint, without the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from models.spike.ssm import with_sdn_from
from sdn.errors import UserError
from src.checkpoint import load_checkpoint, load_weights, misfit
from src.dataloaders.base import SequenceData
from src.dataloaders.check import open_data
from src.dataloaders.contents import warn_if_changed
from src.dataloaders.loading import LoaderOptions, Shard, make_loader
from src.meaning import check_meaning
from src.module import SequenceModule

SDN = ".neuron.sdn."
"""In the names of an SDN's weights."""


def restore(path: str | Path) -> tuple[SequenceModule, SequenceData]:
    """The module with the weights of ``path``, in evaluation mode, and its data family, prepared.

    Raises:
        UserError: no such checkpoint, a foreign one, one whose weights are NaN or infinite, missing data, or data that
            number their tokens or classes otherwise than those it was trained on.
    """
    checkpoint = load_checkpoint(path)
    refuse_nan(checkpoint["state_dict"], path)
    data = open_data(checkpoint["config"]["dataset"])
    check_meaning(checkpoint.get("facts", {}), data.facts(), path)
    warn_if_changed(checkpoint.get("contents"), data, path)
    return module_of(checkpoint, path, data=data).eval(), data


def module_of(
    checkpoint: Mapping[str, Any],
    source: str | Path,
    config: Mapping[str, Any] | None = None,
    data: SequenceData | None = None,
) -> SequenceModule:
    """The module of a checkpoint with its weights. An SDN is taken from the weights: its file may be gone.

    Nothing is allocated before the shapes of the tensors in the file are those of the network described.

    Args:
        source: the checkpoint's name, for messages.
        config: another configuration than the checkpoint's.
        data: the prepared data; by default the widths that the checkpoint remembers.

    Raises:
        UserError: configuration and weights do not belong together, or the configuration is no such thing.
    """
    config = checkpoint["config"] if config is None else config
    widths = {**checkpoint["shapes"], "facts": checkpoint.get("facts", {})}
    data = SimpleNamespace(**widths) if data is None else data
    weights = checkpoint["state_dict"]
    _check_layers(config, weights, source)
    try:
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):
                sketch = _assemble(config, data, weights)
            if config is not checkpoint["config"]:
                weights = _same_neurons(sketch.state_dict(), weights)
            if (difference := misfit(sketch.state_dict(), weights)) is not None:
                raise UserError(
                    f"the weights in {source} do not fit the network that the configuration describes: {difference}"
                )
            module = _assemble(config, data, weights)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, RuntimeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
        raise UserError(f"the configuration in {source} {reason}") from error
    load_weights(module, weights, source)
    return module


def _same_neurons(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` for a network that is judged with an exact neuron instead of its SDN, or with an SDN instead."""
    kept = {name: value for name, value in weights.items() if SDN not in name or name in own}
    return {name: value for name, value in own.items() if SDN in name} | kept


def _check_layers(config: Mapping[str, Any], weights: Mapping[str, Tensor], source: str | Path) -> None:
    """The depth before anything is built: a description may ask for a thousand million layers."""
    found = {name.split(".")[2] for name in weights if name.startswith("backbone.layers.")}
    model = config.get("model")
    asked = model.get("n_layers") if isinstance(model, Mapping) else None
    if isinstance(asked, int) and found and asked != len(found):
        raise UserError(f"the weights in {source} are of {len(found)} layers, not of {asked} (model.n_layers)")


def _assemble(config: Mapping[str, Any], data: Any, weights: Mapping[str, Tensor]) -> SequenceModule:
    """The module with fresh weights, and with the SDN that ``weights`` holds."""
    model = config["model"]
    layer = model.get("layer") or {}
    if any(SDN in name for name in weights):
        layer = with_sdn_from(weights, layer)
    module = SequenceModule({**config, "model": {**model, "layer": layer}}, data)
    module.config = config
    return module


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


def first(module: SequenceModule, data: SequenceData, split: str, count: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The first ``count`` samples of a split as one batch, in the order in which the data have them; of a text, which
    is no set of samples, the first batch."""
    if type(data).eval_loaders is not SequenceData.eval_loaders:
        return next(iter(batches(module, data, split, count)))
    options = {**module.config["loader"], "eval_batch_size": count, "eval_drop_last": False, "bucket": 0}
    dataset, collate = data.views(split)[split]
    return next(iter(make_loader(dataset, collate, LoaderOptions(**options), Shard(0, 1), train=False)))
