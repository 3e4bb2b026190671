"""Atomic writing: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from . import lock
from .disk import refused, sentence
from .errors import UserError

PART = ".part"
_swept: set[Path] = set()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` when the block ends without error.

    Missing parent folders are made. On any error the temporary file is removed and ``path`` is untouched. What killed
    processes left half written in the folder is removed first (:func:`remove_parts`).

    Raises:
        UserError: the folder cannot be made or written to, or the file system refused what the block wrote (a full
            disk, a quota, ...), also where a library reports that in its own way.
    """
    target = Path(path)
    temporary, handle = _open_part(target)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # the part's mode is for its owner alone
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except UserError:
        raise
    except Exception as error:
        # a file read or written elsewhere in the block is not ours to explain
        name = getattr(error, "filename", None)
        if name is not None and Path(os.fsdecode(name)).parent != target.parent:
            raise
        if (reason := refused(error, target)) is None:
            raise
        raise UserError(reason) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        lock.release(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def keep_before(path: Path, kept: Path) -> None:
    """Let ``kept`` name what ``path`` holds now, before ``path`` is replaced; at no moment is there none of the two."""
    if not path.is_file():
        return
    spare = kept.with_name(f".{kept.name}.link.part")
    with contextlib.suppress(OSError):  # without hard links there is one checkpoint less to fall back to
        spare.unlink(missing_ok=True)
        os.link(path, spare)
        os.replace(spare, kept)


def _open_part(target: Path) -> tuple[Path, int]:
    """A new file beside ``target``, locked by this process for as long as it lives."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.suppress(FileNotFoundError):
            os.lstat(target)  # a name too long is told before anything is written
        if (folder := target.parent.resolve()) not in _swept:
            _swept.add(folder)
            remove_parts(folder)
        while True:
            name = f".{target.name[:60]}.{secrets.token_hex(4)}{PART}"
            temporary = target.with_name(name)
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if lock.hold(handle) and lock.same_file(handle, temporary):
                return temporary, handle
            lock.release(handle)  # somebody who tidies up was quicker
    except OSError as error:
        where = target if error.errno in (errno.ENAMETOOLONG, errno.EISDIR) else target.parent
        verb = "write" if where is target else "write to"
        raise UserError(sentence(error.errno, where, verb)) from error


def remove_parts(folder: Path) -> list[Path]:
    """Remove the half-written files in ``folder`` whose writers are dead; returns those that were.

    A living writer, on whatever machine, holds a lock on its file.
    """
    removed = []
    try:
        parts = [entry.path for entry in os.scandir(folder) if entry.name.startswith(".") and entry.name.endswith(PART)]
    except OSError:
        return []
    for part in map(Path, parts):
        with contextlib.suppress(OSError):
            handle = os.open(part, os.O_RDWR)
            try:
                if lock.hold(handle, certain=True):
                    part.unlink()
                    removed.append(part)
            finally:
                lock.release(handle)
    return removed


def _sync_folder(folder: Path) -> None:
    """The new name, too, outlives a power cut, where the platform can promise it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
