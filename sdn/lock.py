"""Locks that die with their process: who writes into a folder, and which half-written files nobody writes any more.

They are ``flock`` locks on a file: the system drops them when the process ends, however it ends. Where the platform or
the file system has no locks everything runs unguarded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError

try:
    import fcntl
except ImportError:  # no flock on this platform
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[int] = set()


def _close_in_child() -> None:
    """A forked worker must not keep the lock of its parent alive."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def hold(handle: int, certain: bool = False) -> bool:
    """Lock an open file for this process until :func:`release`; False if another process holds it.

    Where there are no locks the answer is yes, or no if one must be ``certain``.
    """
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "no locks")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if certain or error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
    _held.add(handle)
    return True


def release(handle: int) -> None:
    """Close the file and drop its lock."""
    _held.discard(handle)
    os.close(handle)


def same_file(handle: int, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own ``folder`` while the block runs: no other process, on any machine that sees it, does so meanwhile.

    Raises:
        UserError: another process owns it; its name is told. Or the folder cannot be written to.
    """
    path = folder / LOCK
    handle = _acquire(path)
    try:
        who = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{who}: {shlex.join(sys.argv)}\n".encode(errors="replace")[:2000], 0)
        yield
    finally:
        if same_file(handle, path):
            path.unlink(missing_ok=True)
        release(handle)


def _acquire(path: Path) -> int:
    from .disk import sentence

    for _ in range(100):  # a few, in case its owner removes the file between opening and locking
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(sentence(error.errno, path.parent, "write to")) from error
        if not hold(handle):
            owner = os.pread(handle, 2000, 0).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise UserError(f"{path.parent} is in use by {owner}; wait for it, or choose another folder")
        if same_file(handle, path):
            return handle
        release(handle)
    raise UserError(f"{path} cannot be locked; choose another folder")
