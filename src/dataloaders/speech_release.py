"""The release of Speech Commands v0.02 as it is downloaded, unpacked or as a tarball: its clips, lists and sound."""

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
from tqdm import tqdm

from sdn.errors import UserError
from src.dataloaders.base import missing
from src.dataloaders.cache import source_stamp

_WORDS = (
    "bed cat down five forward go house left marvin no on right sheila tree up visual yes backward bird dog eight "
    "follow four happy learn nine off one seven six stop three two wow zero"
)
CLASSES = tuple(_WORDS.split())
"""The class of a word is its place here: the order of the S4 code base."""

LENGTH = 16_000
_LISTS = ("validation_list.txt", "testing_list.txt")
_TARBALLS = ("speech_commands_v0.02.tar.gz", "speech_commands.tar.gz")
_HOW = (
    "download http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz (2.3 GB) and put it there as it is or "
    "unpacked (one folder a word, validation_list.txt, testing_list.txt)"
)


class Source:
    """The clips of a release (``word/name.wav``), its two lists, and how to read clips: (n, 16000) int16."""

    def __init__(self, clips: list[str], lists: dict[str, str], read: Callable[[Sequence[str]], np.ndarray]) -> None:
        self.clips, self.lists, self.read = clips, lists, read


def find(folder: Path) -> tuple[list[Any], Callable[[], Source], bool]:
    """What identifies the release in ``folder``, a function that opens it, and whether clips may be read in any order.

    Raises:
        UserError: there is none.
    """
    if all((folder / name).is_file() for name in _LISTS):
        lists = {name: (folder / name).read_text(encoding="utf-8") for name in _LISTS}
        clips = _clips_in_folder(folder)
        stamp = [*source_stamp(*(folder / name for name in _LISTS)), len(clips)]
        return stamp, lambda: Source(clips, lists, partial(_read_files, folder)), True
    tarball = next((folder / name for name in _TARBALLS if (folder / name).is_file()), None)
    if tarball is None:
        raise missing("Speech Commands v0.02", folder, _HOW)
    return source_stamp(tarball), lambda: _open_tarball(tarball), False


def _clips_in_folder(folder: Path) -> list[str]:
    return sorted(f"{word}/{name}" for word in CLASSES for name in _wav_names(folder / word))


def _wav_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(
            f"{folder.parent} has no folder {folder.name}: it is not Speech Commands v0.02 (35 words) or was unpacked "
            f"in part; {_HOW}"
        )
    return [entry.name for entry in os.scandir(folder) if entry.name.endswith(".wav")]


def columns_of(clips: Sequence[str], lists: dict[str, str], where: Path) -> dict[str, np.ndarray]:
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
    if len(set(split.tolist())) < 3:
        raise UserError(f"{where} has no clips for training, validation or testing; {_HOW}")
    path_order = np.empty(len(clips), np.int64)
    path_order[sorted(range(len(clips)), key=clips.__getitem__)] = np.arange(len(clips))
    label = np.array([CLASSES.index(clip.split("/")[0]) for clip in clips], np.uint8)
    return {"label": label, "split": split, "path_order": path_order}


def _read_files(folder: Path, clips: Sequence[str]) -> np.ndarray:
    out = np.zeros((len(clips), LENGTH), np.int16)
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
    if len(samples) < promised or len(samples) > LENGTH:
        raise UserError(
            f"{name} holds {len(samples):,} of {promised:,} samples; a clip is whole and has at most {LENGTH:,}, "
            f"unpack the release again"
        )
    row[: len(samples)] = samples


def _open_tarball(path: Path) -> Source:
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
        out = np.zeros((len(wanted), LENGTH), np.int16)
        for row, clip in zip(out, wanted, strict=True):
            file = next(file for name, file in members if name == clip)
            _read_wav(io.BytesIO(file.read()), f"{clip} in {path}", row)
        return out

    return Source(clips, lists, read)


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
