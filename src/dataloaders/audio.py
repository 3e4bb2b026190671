"""Sound of yours: WAV files of any rate, length, width and number of channels, no code needed.

One folder a class (``words/yes/*.wav``), in folders ``train``, ``val`` and ``test`` if the splits are given
(``words/train/yes/*.wav``), or with lists ``validation_list.txt`` and ``testing_list.txt`` of ``yes/name.wav`` lines.
Or ``labels``: a CSV with the columns ``file`` and ``label``, and ``split`` if they are given; classes or numbers.

Channels are averaged, the sound is resampled to one rate and kept as 16 bits.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders import gate
from src.dataloaders.family import Family, Samples
from src.dataloaders.files import files_below
from src.dataloaders.splits import split_named
from src.dataloaders.table import folder_splits, read_table

FITS = ("ragged", "fixed")
_LISTS = {"validation_list.txt": 1, "testing_list.txt": 2}


class Audio(Family):
    """x (B, L, 1): sound in [-1, 1], times one factor that gives the training set unit size.

    With ``fit: fixed`` every clip is cut or padded with silence to ``seconds``; with ``ragged`` it is only cut, and
    batches are padded with ``lengths``.
    """

    _name_ = "audio"
    one_target = (
        "dataset=audio has one label, or number, a clip; for one a step keep sound and labels as arrays or tables: "
        "pipeline=arrays, pipeline=table"
    )

    def __init__(
        self,
        path: str,
        rate: int = 16_000,
        seconds: float | None = None,
        fit: str = "ragged",
        labels: str | None = None,
        targets: str = "classes",
        normalise: str = "standard",
        workers: int | None = None,
        val_split: float = 0.1,
        test_split: float = 0.2,
        seed: int = 42,
    ) -> None:
        """
        Args:
            rate: samples a second that the sound is resampled to.
            seconds: length in seconds; null for that of the clips (with ``fit: ragged``).
            normalise: ``standard`` divides by the root mean square of the training set; ``none``.
            workers: threads that read; null for one a processor. The result does not depend on it.

        The others are :class:`Family`'s.
        """
        super().__init__(path, targets, False, None, normalise, val_split, test_split, seed)
        gate.at_least(1, rate=rate, workers=workers)
        gate.one_of(FITS, fit=fit)
        if seconds is not None and (isinstance(seconds, str) or not 0 < seconds < math.inf):
            raise UserError(f"dataset.seconds is a length in seconds, not {seconds!r}")
        if seconds is None and fit == "fixed":
            raise UserError("dataset.fit=fixed cuts or pads to dataset.seconds; give it")
        self.rate, self.seconds, self.fit, self.labels = rate, seconds, fit, labels
        self.workers = workers or os.cpu_count() or 1
        self.sampling_step = 1 / rate
        self.cut_to = None if seconds is None else max(1, round(seconds * rate))

    def settings(self) -> dict[str, Any]:
        return {"rate": self.rate, "fit": self.fit, "labels": self.labels}

    def sources(self) -> list[Path]:
        clips = files_below(self.path, (".wav",)) if self.path.is_dir() else []
        if not clips:
            raise UserError(f"{self.path} is no folder; give the one that holds a folder of WAV files for each class")
        lists = [self.path / name for name in (*_LISTS, *([self.labels] if self.labels else []))]
        return clips + [file for file in lists if file.is_file()]

    def read(self) -> Samples:
        root = self.path
        clips = [file for file in self.sources() if file.suffix.lower() == ".wav"]
        if self.labels is not None:
            clips, y, split = self._labelled(root)
        else:
            y, split = [file.parent.name for file in clips], self._listed(clips)
            if loose := next((file for file in clips if file.parent == root), None):
                raise UserError(f"{loose} lies in no folder that names its class; give one a class, or dataset.labels")
        with ThreadPoolExecutor(self.workers) as pool:
            read = pool.map(self._clip, clips)
            x = [*tqdm(read, total=len(clips), desc=root.name, unit="clip", disable=None)]
        return Samples(x, y, lambda i: str(clips[i].relative_to(root)), split)

    def _clip(self, file: Path) -> np.ndarray:
        """(L, 1) int16."""
        sound = resampled(*read_wav(file), self.rate)[: self.cut_to]
        if self.fit == "fixed":
            sound = np.pad(sound, (0, self.cut_to - len(sound)))
        return np.round(sound.clip(-1, 1) * 32767).astype(np.int16)[:, None]

    def _listed(self, clips: list[Path]) -> list[int] | None:
        found = {name: self.path / name for name in _LISTS if (self.path / name).is_file()}
        if not found:
            return folder_splits(clips, self.path)
        part = {line: _LISTS[name] for name, file in found.items() for line in file.read_text("utf-8").split()}
        names = [file.relative_to(self.path).as_posix() for file in clips]
        if absent := sorted(set(part) - set(names)):
            raise UserError(f"{len(absent)} clips of {' and '.join(found)} are not in {self.path}, such as {absent[0]}")
        return [part.get(name, 0) for name in names]

    def _labelled(self, root: Path) -> tuple[list[Path], list[Any], list[int] | None]:
        file = root / self.labels
        table = read_table(file)
        for name in ("file", "label"):
            gate.column(list(table.columns), name, "dataset.labels", file)
        clips = [root / str(name) for name in table["file"]]
        if absent := next((clip for clip in clips if not clip.is_file()), None):
            raise UserError(f"{file} names {absent}, which is not there")
        if "split" not in table.columns:
            return clips, table["label"].tolist(), None
        split = [split_named(word) for word in table["split"]]
        if None in split:
            raise UserError(f"{file}, row {split.index(None)}: split is none of train, val and test")
        return clips, table["label"].tolist(), split

    def _scaling(self, flat: Tensor, ends: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Silence stays 0: one factor, 1 / root mean square."""
        if self.normalise == "none":
            return flat.new_zeros(1).float(), flat.new_ones(1).float() / 32767
        mean, scale = super()._scaling(flat, ends, train)
        size = (mean.double().square() + (1 / scale.double()).square()).sqrt()
        return mean * 0, (1 / size).float()

    def _take(self, about: dict[str, Any], y: Tensor) -> None:
        super()._take(about, y)
        self.sampling_step = 1 / self.rate


def read_wav(file: Path) -> tuple[np.ndarray, int]:
    """The mean of the channels of a WAV file, (L,) in [-1, 1], and its samples a second.

    Raises:
        UserError: it is no WAV file, is cut short or holds no sound.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # about chunks that are no sound
            rate, sound = wavfile.read(file)
    except (ValueError, OSError, EOFError, KeyError, IndexError, TypeError, MemoryError) as error:
        raise UserError(
            f"{file} cannot be read as WAV ({str(error).splitlines()[0] if str(error) else 'cut short'})"
        ) from error
    except Exception as error:  # struct.error of a header that is cut off
        raise UserError(f"{file} cannot be read as WAV ({type(error).__name__}: {error})") from error
    if not sound.size or rate < 1:
        raise UserError(f"{file} holds no sound")
    scale: Callable[[np.ndarray], np.ndarray] = {
        "u": lambda s: (s - 128.0) / 128,
        "i": lambda s: s / float(2 ** (8 * s.dtype.itemsize - 1)),
        "f": lambda s: s.astype(np.float64),
    }[sound.dtype.kind]
    sound = scale(sound)
    sound = sound.mean(1) if sound.ndim > 1 else sound
    if not np.isfinite(sound).all():
        raise UserError(
            f"{file} holds NaN or infinity at sample {int((~np.isfinite(sound)).argmax())}; record it again"
        )
    return sound, int(rate)


def resampled(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound (L,) at ``rate`` -> about (L wanted / rate,), band-limited by a polyphase filter."""
    if rate == wanted:
        return sound
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, wanted)
    return resample_poly(sound, wanted // divisor, rate // divisor)
