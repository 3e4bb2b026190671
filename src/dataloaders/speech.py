"""Speech Commands v0.02, all 35 words: one second of raw sound at 16 kHz, sample by sample.

Read from the unpacked release or from its tarball and packed once as int16 (3.4 GB, :mod:`src.dataloaders.shards`).
A model trained at 16 kHz is also evaluated at 8 kHz without training there: every second sample, with ``rate`` 2 so
that the model doubles its step size (views ``val/2`` and ``test/2``).
"""

from __future__ import annotations

import io
import os
import tarfile
import wave
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders.base import Batch, Collate, SequenceData, missing
from src.dataloaders.cache import cached_tensors, fingerprint, source_stamp
from src.dataloaders.shards import Layout, Shards, ShardSet, build
from src.paths import cache_root, data_root, resolve

_WORDS = (
    "bed cat down five forward go house left marvin no on right sheila tree up visual yes backward bird dog eight "
    "follow four happy learn nine off one seven six stop three two wow zero"
)
CLASSES = tuple(_WORDS.split())
"""The class of a word is its place here: the order of the S4 code base."""

_LENGTH = 16_000
_SPLITS = ("train", "val", "test")
_LISTS = ("validation_list.txt", "testing_list.txt")
_TARBALLS = ("speech_commands_v0.02.tar.gz", "speech_commands.tar.gz")
_PER_SHARD = 2048
_HOW = (
    "download http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz (2.3 GB) and put it there as it is or "
    "unpacked (one folder a word, validation_list.txt, testing_list.txt)"
)


class SpeechCommands(SequenceData):
    """Waveforms (B, 16000, 1), short ones padded with zeros at the end, in the official split 84,843 / 9,981 / 11,005.

    ``normalisation`` is ``scale`` or ``released``:

    - ``scale``: x / sigma with one sigma, the root mean square over the training set. Silence stays 0 and the input
      has unit size.
    - ``released``: what the released pipeline computes. There the sound in [-1, 1] is divided by 2^15 once more and
      then standardised at each time step t with training mean and deviation plus 1e-5, which outweighs the
      deviation: about (x - mu_t) / (sigma_t + 0.33), a fifth of unit size.
    """

    _name_ = "sc"
    d_output = len(CLASSES)
    class_names = CLASSES
    sampling_step = 1 / 16_000
    l_max = _LENGTH

    def __init__(
        self,
        normalisation: str = "scale",
        eval_rates: Sequence[int] = (1, 2),
        workers: int | None = None,
        data_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """
        Args:
            eval_rates: every how-manieth sample is evaluated; the first is the one checkpoints are chosen by.
            workers: threads that read the sound files; null for one a processor.
        """
        super().__init__(data_dir, seed)
        if normalisation not in ("scale", "released"):
            raise UserError(f"dataset.normalisation is scale or released, not {normalisation!r}")
        if not eval_rates or any(rate < 1 for rate in eval_rates) or len(set(eval_rates)) < len(eval_rates):
            raise UserError(f"dataset.eval_rates are different whole numbers from 1 on, not {list(eval_rates)}")
        self.normalisation, self.eval_rates = normalisation, tuple(eval_rates)
        self.workers = workers or os.cpu_count() or 1

    @property
    def data_dir(self) -> Path:
        """Folder of the release: ``dataset.data_dir`` or ``$DATA_PATH/SpeechCommands``."""
        return resolve(self._data_dir) if self._data_dir else data_root() / "SpeechCommands"

    def prepare(self) -> None:
        """Pack the sound and measure the training set; what an interrupted run finished is kept."""
        self._statistics(Shards(self._build()))

    def setup(self) -> None:
        """Open the packed sound."""
        shards = Shards(self._build())
        self._shift, self._scale = self._normalise_by(self._statistics(shards))
        if self.normalisation == "scale":
            self.input_scale = {"shift": [0.0], "scale": [float(self._scale)]}
        split, label, path_order = (shards.columns[name] for name in ("split", "label", "path_order"))
        for number, name in enumerate(_SPLITS):
            rows = np.flatnonzero(split == number)
            rows = rows[np.argsort(path_order[rows])]
            y = torch.from_numpy(label[rows])
            setattr(self, name, ShardSet(shards, torch.from_numpy(rows), y, self._to_sequence))

    def verify(self) -> None:
        """Compare the packed files with their checksums."""
        Shards(self._build()).verify()

    def views(self, split: str) -> dict[str, tuple[Dataset, Collate]]:
        """``split`` at every rate of ``eval_rates``: ``val``, ``val/2``, ..."""
        return {
            split if rate == 1 else f"{split}/{rate}": (getattr(self, split), partial(_collate_at, rate))
            for rate in self.eval_rates
        }

    def _to_sequence(self, sound: Tensor) -> Tensor:
        """(B, 16000) int16 -> (B, 16000, 1) float."""
        return ((sound.float() - self._shift) * self._scale).unsqueeze(-1)

    def _normalise_by(self, statistics: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Shift and factor for int16 samples: scalars for ``scale``, one a time step for ``released``."""
        if self.normalisation == "scale":
            return torch.zeros(()), 1 / statistics["rms"].clamp(min=1.0)
        return statistics["mean"], 1 / (statistics["std"] + 1e-5 * 2.0**30)

    def _statistics(self, shards: Shards) -> dict[str, Tensor]:
        """Of the training set in units of int16: ``mean`` and ``std`` at each step (16000,), ``rms`` ()."""

        def measure() -> dict[str, Tensor]:
            rows = np.flatnonzero(shards.columns["split"] == 0)
            total, squares = np.zeros(_LENGTH), np.zeros(_LENGTH)
            for some in tqdm(np.array_split(rows, len(rows) // 512 + 1), desc="statistics", disable=None):
                sound = shards.rows(some).astype(np.float64)
                total += sound.sum(axis=0)
                squares += np.square(sound).sum(axis=0)
            mean = total / len(rows)
            variance = (squares - len(rows) * mean**2) / max(len(rows) - 1, 1)
            values = {"mean": mean, "std": np.sqrt(variance.clip(0)), "rms": np.sqrt(squares.mean() / len(rows))}
            return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}

        return cached_tensors("sc-statistics", {"version": 1, "of": shards.folder.name}, measure)

    def _build(self) -> Path:
        """The folder of the packed sound, built if need be."""
        if all((self.data_dir / name).is_file() for name in _LISTS):
            lists = {name: (self.data_dir / name).read_text(encoding="utf-8") for name in _LISTS}
            clips = _clips_in_folder(self.data_dir)
            stamp = [*source_stamp(*(self.data_dir / name for name in _LISTS)), len(clips)]
            return self._pack(stamp, lambda: _Source(clips, lists, partial(_read_files, self.data_dir)), self.workers)
        tarball = next((self.data_dir / name for name in _TARBALLS if (self.data_dir / name).is_file()), None)
        if tarball is None:
            raise missing("Speech Commands v0.02", self.data_dir, _HOW)
        return self._pack(source_stamp(tarball), lambda: _open_tarball(tarball), 1)

    def _pack(self, stamp: list[Any], open_source: Callable[[], _Source], workers: int) -> Path:
        settings = {"version": 1, "source": stamp}
        folder = cache_root() / f"sc-{fingerprint(settings)}"
        if not (folder / "manifest.json").is_file():
            source = open_source()
            columns = _columns(source.clips, source.lists, self.data_dir)
            layout = Layout(len(source.clips), (_LENGTH,), "int16", _PER_SHARD)

            def make(start: int, stop: int) -> np.ndarray:
                return source.read(source.clips[start:stop])

            build(folder, layout, make, lambda: columns, settings, workers, "Speech Commands")
        return folder


def _collate_at(rate: int, batch: Any) -> Batch:
    """Every ``rate``-th sample of x (B, L, 1), and ``rate`` for the model to rescale its step by."""
    x, y = batch
    return x[:, ::rate], y, {"rate": float(rate)} if rate != 1 else {}


class _Source:
    """The clips of a release (``word/name.wav``), its two lists, and how to read clips: (n, 16000) int16."""

    def __init__(self, clips: list[str], lists: dict[str, str], read: Callable[[Sequence[str]], np.ndarray]) -> None:
        self.clips, self.lists, self.read = clips, lists, read


def _clips_in_folder(folder: Path) -> list[str]:
    return sorted(f"{word}/{name}" for word in CLASSES for name in _wav_names(folder / word))


def _wav_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(
            f"{folder.parent} has no folder {folder.name}: it is not Speech Commands v0.02 (35 words) or was unpacked "
            f"in part; {_HOW}"
        )
    return [entry.name for entry in os.scandir(folder) if entry.name.endswith(".wav")]


def _columns(clips: Sequence[str], lists: dict[str, str], where: Path) -> dict[str, np.ndarray]:
    """Of each clip: its class, its split (0 train, 1 val, 2 test) and its place in the order of paths.

    Raises:
        UserError: a list names a clip that is not there, or a split is empty.
    """
    validation, testing = (set(lists[name].split()) for name in _LISTS)
    if absent := sorted((validation | testing) - set(clips)):
        raise UserError(
            f"{len(absent)} clips that {' or '.join(_LISTS)} name are not in {where} (such as {absent[0]}): "
            f"the release is incomplete; {_HOW}"
        )
    split = np.array([1 if clip in validation else 2 if clip in testing else 0 for clip in clips], np.uint8)
    if len(set(split.tolist())) < len(_SPLITS):
        raise UserError(f"{where} has no clips for training, validation or testing; {_HOW}")
    path_order = np.empty(len(clips), np.int64)
    path_order[sorted(range(len(clips)), key=clips.__getitem__)] = np.arange(len(clips))
    label = np.array([CLASSES.index(clip.split("/")[0]) for clip in clips], np.uint8)
    return {"label": label, "split": split, "path_order": path_order}


def _read_files(folder: Path, clips: Sequence[str]) -> np.ndarray:
    out = np.zeros((len(clips), _LENGTH), np.int16)
    for row, clip in zip(out, clips, strict=True):
        with (folder / clip).open("rb") as file:
            _read_wav(file, str(folder / clip), row)
    return out


def _read_wav(file: IO[bytes], name: str, row: np.ndarray) -> None:
    """Write a clip into the start of ``row``.

    Raises:
        UserError: not a WAV file of 16 bits, one channel, 16 kHz and at most one second.
    """
    try:
        with wave.open(file) as sound:
            form = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            promised = sound.getnframes()
            data = sound.readframes(promised)
    except (wave.Error, EOFError) as error:
        raise UserError(f"{name} is not a readable WAV file ({error}); unpack the release again") from error
    if form != (2, 1, 16_000):
        raise UserError(f"{name} has {form[1]} channel(s) of {8 * form[0]} bits at {form[2]} Hz, expected 1, 16, 16000")
    samples = np.frombuffer(data, "<i2", count=len(data) // 2)
    if len(samples) < promised or len(samples) > _LENGTH:
        raise UserError(
            f"{name} holds {len(samples):,} of {promised:,} samples; a clip is whole and has at most {_LENGTH:,}, "
            f"unpack the release again"
        )
    row[: len(samples)] = samples


def _open_tarball(path: Path) -> _Source:
    """The release in a tarball, its clips in the order of the archive: one pass for the names, one for the sound."""
    clips, lists = [], {}
    for name, file in _members(path, "list clips"):
        if name in _LISTS:
            lists[name] = file.read().decode()
        elif name.endswith(".wav"):
            clips.append(name)
    words = {clip.split("/")[0] for clip in clips}
    if absent := [*(set(_LISTS) - set(lists)), *(set(CLASSES) - words)]:
        raise UserError(f"{path} lacks {', '.join(sorted(absent))}: it is not Speech Commands v0.02; {_HOW}")
    members = _members(path, "read")

    def read(wanted: Sequence[str]) -> np.ndarray:
        # Shards are made in the order of the archive, so it is read forward only.
        out = np.zeros((len(wanted), _LENGTH), np.int16)
        for row, clip in zip(out, wanted, strict=True):
            file = next(file for name, file in members if name == clip)
            _read_wav(io.BytesIO(file.read()), f"{clip} in {path}", row)
        return out

    return _Source(clips, lists, read)


def _members(path: Path, label: str) -> Iterator[tuple[str, IO[bytes]]]:
    """``(name, file)`` of the lists and of the clips of known words, in the order of the archive."""
    try:
        with (
            path.open("rb") as raw,
            tqdm.wrapattr(raw, "read", total=path.stat().st_size, desc=label, disable=None) as watched,
            tarfile.open(fileobj=watched, mode="r|*") as archive,
        ):
            for member in archive:
                name = str(PurePosixPath(member.name))
                known = name in _LISTS or name.split("/")[0] in CLASSES
                if member.isfile() and known:
                    yield name, archive.extractfile(member)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); {_HOW}") from error
