"""A look at a data set: samples as text, or as pictures on one contact sheet (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.files import atomic_path
from src.dataloaders.base import Batch, SequenceData

_BORDER, _SHEET_WIDTH = 2, 1200


def fetch(data: SequenceData, split: str, indices: Sequence[int]) -> Batch:
    """The batch (x, y, z) that a loader would make of these samples of a split."""
    dataset, collate = getattr(data, split), data.collate
    batched = getattr(dataset, "__getitems__", None)
    return collate(batched(list(indices)) if batched else [dataset[i] for i in indices])


def spread(n: int, k: int) -> list[int]:
    """``k`` (or all) indices spread over ``range(n)``."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, k)).tolist()})


def text(data: SequenceData, split: str, n: int, width: int = 100) -> str:
    """``n`` samples of a split, a line each: class, length and the beginning of the sequence."""
    x, y, z = fetch(data, split, spread(len(getattr(data, split)), n))
    lengths = z.get("lengths", torch.full((len(x),), x.shape[1]))
    per_sample = len(x) // len(y)  # two for pairs, first texts before second ones
    lines = []
    for i, target in enumerate(y):
        rows = range(i, len(x), len(y)) if per_sample > 1 else (i,)
        for row in rows:
            shown = _beginning(data, x[row, : int(lengths[row])], width)
            label = _label(data, target)
            lines.append(f"{label}, length {int(lengths[row])}: {shown}")
    return "\n".join(lines)


def _label(data: SequenceData, target: Tensor) -> str:
    if target.is_floating_point():
        return "target " + ", ".join(f"{value:.3g}" for value in target.flatten()[:4].tolist())
    if target.ndim:
        return "stream" if data.class_names is None else "a class a step"
    name = "" if data.class_names is None else data.class_names[int(target)]
    return f"class {int(target)}" + (f" ({name})" if name and name != str(int(target)) else "")


def _beginning(data: SequenceData, x: Tensor, width: int) -> str:
    vocab: Any = getattr(data, "vocab", None)
    if data.n_tokens is None or vocab is None:
        return f"mean {x.float().mean():.3g}, std {x.float().std():.3g}, range {x.min():.3g} to {x.max():.3g}"
    tokens = vocab.decode(x[:width].tolist())
    joined = ("" if all(len(token) == 1 for token in tokens[:-1]) else " ").join(tokens)
    return joined.replace("\n", " ")[:width]


def sheet(data: SequenceData, split: str, n: int, path: Path) -> bool:
    """Write ``n`` samples of a split as one PNG, those of class 1 (or the later classes) after those before.

    False if the data have no pictures.
    """
    from PIL import Image

    x, y, _ = fetch(data, split, spread(len(getattr(data, split)), n))
    if x.ndim != 3 or not x.is_floating_point():
        return False
    order = torch.argsort(y, stable=True) if y.ndim == 1 else range(len(x))
    pictures = [picture if (picture := data.picture(x[i])) is not None else _envelope(x[i]) for i in order]
    height, width = pictures[0].shape
    columns = max(1, min(len(pictures), _SHEET_WIDTH // width, round((len(pictures) * 1.5 * height / width) ** 0.5)))
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (height + _BORDER) + _BORDER, columns * (width + _BORDER) + _BORDER), 70, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (
            k * (side + _BORDER) + _BORDER for k, side in zip(divmod(i, columns), (height, width), strict=True)
        )
        canvas[top : top + height, left : left + width] = (255 * picture.clamp(0, 1)).round().to(torch.uint8).numpy()
    zoom = max(1, _SHEET_WIDTH // canvas.shape[1])
    with atomic_path(path) as temporary:
        Image.fromarray(canvas.repeat(zoom, axis=0).repeat(zoom, axis=1)).save(temporary, format="PNG")
    return True


def _envelope(x: Tensor, height: int = 96, width: int = 240) -> Tensor:
    """The range of the first channel of x (L, d) in each of ``width`` stretches of time, as a picture (h, w)."""
    wave = x[:, 0] / x[:, 0].abs().max().clamp(min=1e-6)
    level = torch.linspace(1, -1, height)[:, None]
    parts = wave.tensor_split(min(width, len(wave)))
    low, high = (torch.stack([reduce(part) for part in parts]) for reduce in (torch.min, torch.max))
    return ((level <= high + 1 / height) & (level >= low - 1 / height)).float()
