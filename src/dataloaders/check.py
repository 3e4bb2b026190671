"""Data made ready, and the gate of a data class of the user's: it is looked at once, after ``setup``, so that a mistake
is a sentence about the class and not a traceback out of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sdn.errors import UserError
from src.dataloaders.base import SequenceData
from src.dataloaders.contents import watched
from src.dataloaders.preview import fetch
from src.registry import build

_SPLITS = ("train", "val", "test")


def open_data(config: Mapping[str, Any]) -> SequenceData:
    """The data of a ``dataset`` configuration, prepared and set up; a class of the user's is looked at.

    Raises:
        UserError: see :func:`src.registry.build`; the data are missing or cannot be, or the class breaks its word.
    """
    data = build("dataset", config)
    with watched() as seen:
        data.prepare()
        data.setup()
    data.contents = seen or data.checksums()
    if not type(data).__module__.startswith("src."):
        check_family(data)
    return data


def check_family(data: SequenceData) -> None:
    """Splits, widths, and a batch of two validation samples.

    Raises:
        UserError: something is missing or of another shape than the class says.
    """
    name = f"{type(data).__module__}.{type(data).__qualname__}"
    widths = (("d_output", "the number of classes or target values"), ("d_input", "the number of channels"))
    for attribute, what in widths:
        value = getattr(data, attribute, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must set {attribute}, {what}, to a whole number, not {value!r}")
    for split in _SPLITS:
        part = getattr(data, split, None)
        if part is None or not hasattr(part, "__len__") or not hasattr(part, "__getitem__"):
            raise UserError(f"{name}.setup() must make {split}, a data set with a length and items, not {part!r}")
        if not len(part):
            raise UserError(f"{split} of {name} is empty")
    batch = fetch(data, "val", range(min(2, len(data.val))))
    if not isinstance(batch, tuple) or len(batch) != 3 or not isinstance(batch[2], dict):
        raise UserError(f"{name}.collate() must return (x, y, z), z a dictionary")
    x, y, z = batch
    wanted = f"(B, L, {data.d_input}) of floats" if data.n_tokens is None else "(B, L) of token ids, int64"
    if data.n_tokens is None:
        fits = isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim == 3 and x.shape[-1] == data.d_input
    else:
        fits = isinstance(x, torch.Tensor) and x.dtype == torch.int64 and x.ndim == 2
    if not fits:
        found = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise UserError(f"a batch of {name} must have x {wanted}, not {found}")
    if data.n_tokens is None and not bool(torch.isfinite(x).all()):
        raise UserError(f"a batch of {name} holds NaN or infinity")
    if data.n_tokens is not None and not 0 <= int(x.min()) <= int(x.max()) < data.n_tokens:
        raise UserError(f"token ids of {name} lie in {int(x.min())} .. {int(x.max())}, but n_tokens is {data.n_tokens}")
    if not isinstance(y, torch.Tensor) or not (y.is_floating_point() or y.dtype == torch.int64):
        raise UserError(f"a batch of {name} must have y as int64 classes or as float numbers")
    if y.dtype == torch.int64 and int(y.max()) >= data.d_output:
        raise UserError(f"a class of {name} is {int(y.max())}, but d_output is {data.d_output}: they count from 0")
    lengths = z.get("lengths")
    if lengths is not None and not 0 < int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
        raise UserError(f"lengths of {name} are {lengths.tolist()} in a batch of {x.shape[1]} steps")
