"""Samples of a test set as plain data for the page, with Python's own logits to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.spike.network import Network
from sdn.errors import UserError
from src.dataloaders.base import SequenceData
from src.dataloaders.preview import fetch, spread
from src.live.network import pack

MOST_BYTES = 200_000
"""A page keeps fewer samples of long sequences."""
MOST_POINTS = 32
"""At how many steps of a sample per-step logits are kept."""


@dataclass
class Samples:
    """``x (n, L, d)`` float or ``(n, L)`` ids, padded; ``lengths (n,)``; targets ``y (n,)``, or ``(n, L)`` a step."""

    x: Tensor
    lengths: Tensor
    y: Tensor


def choose(data: SequenceData, count: int | None) -> Samples:
    """Samples spread over the test set; ``count`` None: 100, or as many as :data:`MOST_BYTES` hold, at least 12."""
    n = len(data.test)
    if count is None:
        x, y, _ = fetch(data, "test", [0])
        values = 1 if y.dim() == 1 else y.shape[1]
        count = min(100, max(12, MOST_BYTES // (x[0].numel() + values)))
    x, y, z = fetch(data, "test", spread(n, count))
    if y.is_floating_point() or len(x) != len(y):
        raise UserError("a page shows classes, of a sequence or of every step; this data set has other targets")
    return Samples(x, z.get("lengths", torch.full((len(x),), x.shape[1])), y)


@torch.no_grad()
def answers(network: Network, samples: Samples) -> tuple[NDArray, NDArray]:
    """``(steps (n, k), logits (n, k, C))``: what ``network.step`` says after some steps, the last one among them.

    A decoder that summarises says its answer after the last step (k = 1), one that answers every step is asked at up
    to :data:`MOST_POINTS`.
    """
    every = samples.y.dim() == 2
    ends = samples.lengths.numpy() - 1
    points = np.stack([np.linspace(0, end, MOST_POINTS).round().astype(int) if every else [end] for end in ends])
    wanted = set(points.ravel().tolist())
    state, constants, kept = network.initial_state(len(samples.x)), network.backbone.recurrence(), {}
    for t in range(int(samples.lengths.max())):
        logits, state = network.step(samples.x[:, t], state, constants)
        if t in wanted:
            kept[t] = logits.float().numpy()
    rows = range(len(samples.x))
    return points, np.stack([[kept[t][row] for t in points[row].tolist()] for row in rows]).astype(np.float32)


def packed(network: Network, samples: Samples) -> dict[str, Any]:
    """``{"count", "ends", "x", "palette", "y", "at", "logits"}``: sequences one after another, without their padding.

    Inputs of at most 256 values are stored as a byte each, and ``palette`` says what the bytes stand for.
    """
    points, logits = answers(network, samples)
    inside = [slice(0, int(length)) for length in samples.lengths]
    x = np.concatenate([row[part].numpy().reshape(-1) for row, part in zip(samples.x, inside, strict=True)])
    y = samples.y.numpy() if samples.y.dim() == 1 else np.concatenate(
        [row[part].numpy() for row, part in zip(samples.y, inside, strict=True)]
    )  # fmt: skip
    values, index = np.unique(x, return_inverse=True)
    ids = not samples.x.is_floating_point()
    small = len(values) <= 256
    return {
        "count": len(samples.x),
        "ends": samples.lengths.cumsum(0).tolist(),
        "x": pack(index.astype(np.uint8)) if small else pack(x.astype(np.int32 if ids else np.float32)),
        "palette": pack(values.astype(np.int32 if ids else np.float32)) if small else None,
        "y": pack(y.astype(np.int16)),
        "at": points.tolist(),
        "logits": pack(logits),
    }


def picture_of(data: SequenceData, samples: Samples) -> dict[str, Any] | None:
    """What a page needs to draw on, if the sequences are grey pictures read pixel by pixel, else None.

    ``{"rows", "columns", "order", "paper", "ink", "box", "pen"}``: at step t the pixel ``order[t]`` arrives (None: row
    by row); ``paper`` and ``ink`` are the inputs of an empty and a full pixel; ``box`` [top, left, bottom, right] is
    where writing stands on the average, in units of the side, and ``pen`` how wide the pen is (both None: not writing
    on an empty ground).
    """
    x = samples.x
    if samples.y.dim() != 1 or not x.is_floating_point() or x.shape[-1] != 1 or len(set(samples.lengths.tolist())) > 1:
        return None
    shown = data.picture(x[0])
    if shown is None or shown.numel() != x.shape[1]:
        return None
    rows, columns = shown.shape
    order = getattr(data, "order", lambda: None)()
    flat = x[..., 0].numpy()
    paper, ink = float(flat.min()), float(flat.max())
    grey = np.empty_like(flat)
    grey[:, slice(None) if order is None else order.numpy()] = (flat - paper) / max(ink - paper, 1e-6)
    box, pen = _writing(grey.reshape(-1, rows, columns))
    return {"rows": rows, "columns": columns, "order": None if order is None else order.tolist(),
            "paper": paper, "ink": ink, "box": box, "pen": pen}  # fmt: skip


def _writing(grey: NDArray) -> tuple[list[float] | None, float | None]:
    """Average box of what is written, and the width of the pen, from pictures ``(n, rows, columns)`` in [0, 1]."""
    _, rows, columns = grey.shape
    if np.median(grey[:, [0, 0, -1, -1], [0, -1, 0, -1]]) > 0.1:  # the corners: no empty ground
        return None, None
    boxes = []
    for picture in grey:
        y, x = np.nonzero(picture > 0.2)
        if len(y):
            boxes.append([y.min() / rows, x.min() / columns, (y.max() + 1) / rows, (x.max() + 1) / columns])
    if not boxes:
        return None, None
    top, left, bottom, right = np.mean(boxes, 0).tolist()
    # a figure's stroke is about 2.2 heights long, so its ink, as a share of the picture, over that is the pen's width
    return [top, left, bottom, right], float(grey.mean() / (2.2 * (bottom - top)))
