"""What a run's data consist of: names and checksums, kept in its checkpoints and compared where one is used again.

Whatever reads data notes what it has read (:func:`note`); :func:`watched` gathers that while a family is opened. A
checksum is of contents alone: the folder, the time of change and the name of a file have no part in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Subset

from sdn.checksum import checksum
from sdn.errors import UserError
from sdn.files import write_text
from src.dataloaders.sets import RaggedSet, TensorSet

log = logging.getLogger(__name__)

Contents = dict[str, dict[str, str]]
"""Name -> ``checksum`` of what was read, and the ``file`` it was read from."""

_watching: list[Contents] = []


@contextlib.contextmanager
def watched() -> Iterator[Contents]:
    """What is read while the block runs."""
    seen: Contents = {}
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching[:] = [other for other in _watching if other is not seen]


def note(name: str, value: str, file: Path) -> None:
    """``file`` was read as part of the data; ``value`` changes with its content. Several of one name are counted."""
    for seen in _watching:
        key, number = name, 1
        while key in seen and seen[key]["file"] != str(file):
            number += 1
            key = f"{name} {number}"
        seen[key] = {"checksum": value, "file": str(file)}


def of_splits(data: Any) -> Contents:
    """Of data that nothing has noted: the tensors in memory behind ``train``, ``val`` and ``test``."""
    found: Contents = {}
    for split in ("train", "val", "test"):
        part = getattr(data, split, None)
        while isinstance(part, Subset):
            part = part.dataset
        if isinstance(part, TensorSet):
            tensors: dict[str, Tensor] = {"x": part.x, "y": part.y}
        elif isinstance(part, RaggedSet):
            tensors = {"flat": part.flat, "lengths": part.lengths(), "y": part.y}
        else:
            continue
        found[split] = {"checksum": checksum(tensors), "file": ""}
    return found


def changed(before: Contents | None, now: Contents | None) -> list[str]:
    """Names in both whose checksums differ; none where one side has no record."""
    before, now = before or {}, now or {}
    return [name for name in before if name in now and before[name]["checksum"] != now[name]["checksum"]]


def check_goes_on(before: Contents | None, data: Any, source: object, accepted: bool) -> None:
    """Refuse to go on from the checkpoint ``source`` with other data than it was trained on.

    Args:
        before: what the checkpoint remembers.
        accepted: only say so.

    Raises:
        UserError: with the file.
    """
    if not (names := changed(before, data.contents)):
        return
    what = f"{_where(names, data)} changed since {source} was trained on it"
    if not accepted:
        raise UserError(
            f"{what}; put the old data back, start another run (in this folder with train.overwrite=true), or go on "
            "with the changed data by train.accept_changed_data=true"
        )
    log.warning("%s; going on with it, as train.accept_changed_data says", what)


def warn_if_changed(before: Contents | None, data: Any, source: object) -> None:
    """Say that ``source`` is judged by other data than it was trained with."""
    if names := changed(before, data.contents):
        log.warning(
            "%s changed since %s was trained; figures are of the data as they are now", _where(names, data), source
        )


def _where(names: list[str], data: Any) -> str:
    """``listops in /cache/listops-1.safetensors, made of /data/listops,``"""
    files = [data.contents[name]["file"] for name in names]
    text = " and ".join(
        f"{name} in {file}" if file else f"{name} of {_name(data)}" for name, file in zip(names, files, strict=True)
    )
    origin = _origin(data)
    return f"{text}, made of {origin}," if origin else text


def _name(data: Any) -> str:
    return getattr(type(data), "_name_", None) or type(data).__qualname__


def _origin(data: Any) -> Path | None:
    for attribute in ("path", "data_dir"):
        with contextlib.suppress(Exception):  # a class of the user's may have neither
            if (found := Path(getattr(data, attribute))).exists():
                return found
    return None


# -- large files ----------------------------------------------------------------------------------------------------


def first_changed(files: Mapping[Path, str], beside: Path) -> Path | None:
    """The first of ``files`` whose SHA-256 is not the one given, None if all are as written.

    A file is read once: ``beside`` keeps its size and time of change, and while these stay it is believed.
    """
    try:
        seen = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        seen = {}
    seen = seen if isinstance(seen, dict) else {}
    now = {}
    for file, expected in files.items():
        try:
            stamp = _stamp(file, expected)
            if seen.get(file.name) != stamp and sha256(file) != expected:
                return file
        except OSError:
            return file
        now[file.name] = stamp
    if now != seen:
        with contextlib.suppress(UserError):  # a folder that cannot be written: they are read again the next time
            write_text(beside, json.dumps(now) + "\n")
    return None


def _stamp(file: Path, expected: str) -> list[Any]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, expected]


def sha256(file: Path) -> str:
    """Of the bytes of a file."""
    with file.open("rb") as handle:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(handle, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := handle.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
