"""What a file system refuses, in one sentence: a full disk, a quota, a read-only folder, a name too long."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

SENTENCES = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.EFBIG: "the file would be larger than allowed here; see ulimit -f, or write to another file system",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder or change its permissions",
    errno.EPERM: "the operation is not permitted; choose another folder or change its permissions",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a file is in the way; choose another name",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTEMPTY: "a folder is in the way; choose another name",
    errno.ELOOP: "its links go round in a circle; choose another folder",
    errno.EMFILE: "too many files are open; raise the limit with ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "the disk or the network answered with an error; check it, or choose another folder",
    errno.ESTALE: "the network file system lost it; mount it again, or choose another folder",
    errno.ENODEV: "the device is gone",
    errno.ENXIO: "the device is gone",
    errno.ENOLCK: "no more locks are to be had",
    errno.ETIMEDOUT: "the file system does not answer",
    errno.EBUSY: "it is in use",
    errno.ETXTBSY: "it is in use",
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, the one it was raised from or while handling, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def code(error: BaseException) -> int | None:
    """The ``errno`` behind an exception, also where a library hides it: safetensors in its text, ``torch.save`` in
    the exception it was handling."""
    for link in chain(error):
        if isinstance(link, OSError) and link.errno is not None:
            return link.errno
        if (match := re.search(r"\(os error (\d+)\)", str(link))) and type(link).__name__ == "SafetensorError":
            return int(match[1])
    return None


def is_writer(error: BaseException) -> bool:
    """Whether torch's zip writer failed; it does not say why."""
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("inline_container", "PytorchStreamWriter", "iostream error")
    )


def sentence(number: int | None, path: str | os.PathLike[str], verb: str = "write") -> str:
    """``cannot write PATH: the disk is full; free some space and run again``"""
    reason = SENTENCES.get(number or 0) or (os.strerror(number) if number else "the file system refused it")
    return f"cannot {verb} {path}: {reason}"


def refused(error: Exception, path: Path) -> str | None:
    """The sentence for an exception that was raised while ``path`` was written; None if no file system raised it."""
    number = code(error)
    if number is None and not is_writer(error):
        return None
    return sentence(probe(path.parent) if number is None else number, path)


def probe(folder: Path) -> int | None:
    """Why nothing can be written to ``folder`` at the moment, as an ``errno``; None if a megabyte can."""
    trial = folder / f".{os.getpid()}.probe.part"
    try:
        with _removed(trial), open(trial, "xb") as file:
            for _ in range(16):
                file.write(b"\1" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
