"""DVS128 Gesture: eleven gestures of 29 people before an event camera, read row by row.

Needs ``tonic`` (requirements-gesture.txt), which downloads the data (about 3 GB), checks it and reads a recording. A
recording is cut into slices of 1.7 s from its first event on; what is left at the end is dropped (a recording shorter
than a slice is one slice). A slice is 68 frames of 25 ms, always: quiet ones are zero. A frame counts the events of
each polarity:

    (68, 2, 128, 128) / scale -> 2 x 2 maximum -> mean of the polarities -> rows as tokens (68 * 64, 64) = (4352, 64)

People of the validation split are not in the training split, and only training slices are augmented. The slices are
kept as event lists (:mod:`src.dataloaders.events`) and binned when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders import warp
from src.dataloaders.base import Batch, SequenceData
from src.dataloaders.cache import fingerprint, locked, source_stamp, to_be_compared
from src.dataloaders.contents import note
from src.dataloaders.events import FRAME_US, FRAMES, SIDE, EventFile, cut
from src.paths import cache_root, data_root, resolve

_ROWS = SIDE // 2


class Gesture(SequenceData):
    """Slices as (B, 4352, 64) with ``lengths``: 4352, fewer only for a recording shorter than a slice."""

    _name_ = "gesture"
    d_input = SIDE // 2
    d_output = 11
    l_max = FRAMES * _ROWS
    class_names = (
        "hand clapping",
        "right hand wave",
        "left hand wave",
        "right arm clockwise",
        "right arm counter clockwise",
        "left arm clockwise",
        "left arm counter clockwise",
        "arm roll",
        "air drums",
        "air guitar",
        "other gestures",
    )

    def __init__(
        self,
        augment: bool = True,
        scale: float = 19.0,
        eval_scale: float | None = None,
        val_split: float = 0.1,
        split_by: str = "user",
        data_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """
        Args:
            augment: crop, perspective and rotation at random, the same for all frames of a training slice.
            scale, eval_scale: counts are divided by it, in evaluation by the second; null: the same.
            val_split: share of the people (or recordings) of the official training part held out for validation.
            split_by: ``user``, or ``recording`` (one person under one light).
        """
        super().__init__(data_dir, seed)
        if split_by not in ("user", "recording"):
            raise UserError(f"dataset.split_by is user or recording, not {split_by!r}")
        if scale <= 0 or (eval_scale is not None and eval_scale <= 0) or not 0 < val_split < 1:
            raise UserError("dataset.scale and eval_scale are positive numbers and 0 < val_split < 1")
        self.augment, self.scale, self.eval_scale = augment, scale, eval_scale or scale
        self.val_split, self.split_by = val_split, split_by

    @property
    def data_dir(self) -> Path:
        """Folder that holds tonic's ``DVSGesture``: ``dataset.data_dir`` or ``$DATA_PATH``."""
        return resolve(self._data_dir) if self._data_dir else data_root()

    def prepare(self) -> None:
        """Download if need be, and cut the recordings into slices."""
        for train in (True, False):
            self._events(train)

    def setup(self) -> None:
        """Open the slices and split the official training part."""
        events, test = self._events(True), self._events(False)
        group = events.user if self.split_by == "user" else events.recording
        held_out = torch.from_numpy(np.isin(group, self._held_out(np.unique(group))))
        everything = torch.arange(len(events))
        self.train = SliceSet(events, everything[~held_out], self.scale, self.augment)
        self.val = SliceSet(events, everything[held_out], self.eval_scale)
        self.test = SliceSet(test, torch.arange(len(test)), self.eval_scale)

    def collate(self, batch: Any) -> Batch:
        """Sequences have one length already; ``lengths`` says how much of it was recorded."""
        x, y, lengths = batch
        return x, y, {"lengths": lengths}

    def picture(self, x: Tensor) -> Tensor:
        """Eight of the 68 frames of one sequence side by side, (64, 8 * 64) in [0, 1]."""
        frames = x.reshape(FRAMES, _ROWS, self.d_input)[torch.linspace(0, FRAMES - 1, 8).long()]
        return (torch.cat(list(frames), dim=1) * self.scale / 4).clamp(max=1)

    def _held_out(self, groups: np.ndarray) -> np.ndarray:
        count = min(max(1, round(self.val_split * len(groups))), len(groups) - 1)
        if count < 1:
            raise UserError(f"DVS128 Gesture has one {self.split_by} only, nothing can be held out for validation")
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(self.seed)).numpy()
        return groups[order[:count]]

    def _events(self, train: bool) -> EventFile:
        part = "train" if train else "test"
        archive = self.data_dir / "DVSGesture" / f"ibmGesture{part.capitalize()}.tar.gz"
        settings = {
            "version": 1,
            "frames": (FRAMES, FRAME_US),
            "of": source_stamp(archive) if archive.is_file() else str(self.data_dir),
        }
        path = cache_root() / f"gesture-{part}-{fingerprint(settings)}.events"
        if not EventFile.exists(path):
            with locked(path.with_suffix(".lock")):
                if not EventFile.exists(path):
                    EventFile.write(path, _slices(self.data_dir, train))
        events = EventFile(path)
        if to_be_compared(path):
            events.compare(_slices(self.data_dir, train))
        note(f"gesture-{part}", events.content, path)
        return events


class SliceSet(Dataset):
    """The slices ``rows`` of an :class:`EventFile` as ``(x (B, 4352, 64), y (B,), lengths (B,))``."""

    def __init__(self, events: EventFile, rows: Tensor, scale: float, augment: bool = False) -> None:
        self.events, self.rows, self.scale, self.augment = events, rows, scale, augment
        self.y = torch.from_numpy(events.label)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        x, y, lengths = self.__getitems__([index])
        return x[0], y[0], lengths[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self.rows[torch.as_tensor(indices)]
        x = torch.stack([self._sequence(int(row)) for row in chosen])
        lengths = torch.from_numpy(self.events.frames)[chosen] * _ROWS
        return x, self.y[torch.as_tensor(indices)], lengths

    def _sequence(self, row: int) -> Tensor:
        frames = self.events.counts(row)
        if self.augment:
            frames = warp.warp(frames, warp.random_crop() @ warp.random_perspective() @ warp.random_rotation())
        return F.max_pool2d(frames / self.scale, 2).mean(dim=1).reshape(FRAMES * _ROWS, SIDE // 2)


def _slices(folder: Path, train: bool) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Cells and ``(label, user, recording, frames)`` of every slice, recordings in the order of their paths."""
    dataset = _open_dataset(folder, train)
    order = sorted(range(len(dataset)), key=lambda i: _sort_key(Path(dataset.data[i])))
    recordings: dict[str, int] = {}
    for i in tqdm(order, desc=f"DVS128 Gesture, {'train' if train else 'test'}", unit="rec"):
        path = Path(dataset.data[i])
        recording = recordings.setdefault(path.parent.name, len(recordings))
        try:
            events, label = dataset[i]
            user = int(path.parent.name.split("_")[0].removeprefix("user"))
            for cells, frames in cut(events):
                yield cells, (int(label), user, recording, frames)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"{path} cannot be read as a DVS128 Gesture recording ({error}); delete {path.parents[1]} and the "
                f"archive beside it to download it again"
            ) from error


def _sort_key(path: Path) -> tuple[str, int | str]:
    return path.parent.name, int(path.stem) if path.stem.isdigit() else path.stem


def _open_dataset(folder: Path, train: bool) -> Any:
    try:
        from tonic.datasets import DVSGesture
    except ImportError as error:
        raise UserError(
            "DVS128 Gesture is read with tonic; install it with `pip install -r requirements-gesture.txt`"
        ) from error
    try:
        dataset = DVSGesture(save_to=str(folder), train=train)
    except Exception as error:
        raise UserError(
            f"DVS128 Gesture not found in {folder / 'DVSGesture'} and its download failed ({error}): put there "
            f"{DVSGesture.train_filename} from {DVSGesture.train_url} and {DVSGesture.test_filename} from "
            f"{DVSGesture.test_url} (about 3 GB together); they are checked and unpacked by the next run"
        ) from error
    if len(dataset) == 0:
        raise UserError(f"{folder / 'DVSGesture'} holds no recordings; delete it to download it again")
    return dataset
