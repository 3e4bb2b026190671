"""The user's files: found, and noticed when they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdn.errors import UserError
from src.paths import resolve


class MissingError(UserError):
    """The data are not there."""


def existing(path: object) -> Path:
    """A file or folder that the user named by ``dataset.path``.

    Raises:
        UserError: there is no such thing.
    """
    found = resolve(str(path))
    if not found.exists():
        raise UserError(f"there is nothing at {found}; dataset.path is the file or folder of your data")
    return found


def files_below(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Files of these endings at any depth, in the order of their paths.

    Raises:
        UserError: there is none.
    """
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in endings and file.is_file())
    if not found:
        raise UserError(f"{folder} has no file that ends in {', '.join(endings)}")
    return found


def stamp(root: Path, files: Sequence[Path]) -> list[object]:
    """Path, name, size and time of change of every file: put it among the settings of a cache."""
    seen = [(file, file.stat()) for file in files]
    return [str(root), *([file.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns] for file, s in seen)]
