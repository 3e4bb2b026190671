"""Caches of processed data: tensors in one safetensors file, named by everything that shaped them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from sdn.checksum import KEY, checksum, load_tensors, save_tensors
from sdn.errors import UserError
from src.dataloaders.contents import note
from src.dataloaders.files import MissingError
from src.paths import cache_root

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` while the block runs; a second process waits for it.

    Where the file system or the platform has no locks the block runs unguarded: writing is atomic, so the
    worst case is that the same file is made twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any of ``settings`` (plain data)."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def source_stamp(*paths: Path) -> list[list[object]]:
    """Name, size and modification time of source files: put it among the settings to notice changed data."""
    return [[path.name, path.stat().st_size, int(path.stat().st_mtime)] for path in paths]


def cached_tensors(
    name: str,
    settings: Mapping[str, Any],
    build: Callable[[], Mapping[str, Tensor]],
    derived: bool = False,
) -> dict[str, Tensor]:
    """The tensors ``build()`` returns, read from the cache if the same ``settings`` were built before.

    The file is ``cache_root()/name-<fingerprint of settings>.safetensors``; put a ``version`` among the settings
    and raise it when the meaning of the tensors changes. Several processes may call this at once: one builds, the
    others wait. A damaged file, or one that was changed (:mod:`sdn.checksum`), is built again with a warning.
    Loading maps the file into memory.

    Args:
        derived: the tensors follow from other caches, such as a mean, and differ by rounding between machines.
    """
    path = cache_root() / f"{name}-{fingerprint(settings)}.safetensors"
    if (tensors := _read(path)) is None:
        with locked(path.with_suffix(".lock")):
            if (tensors := _read(path)) is None:
                log.info("preparing %s once, into %s", name, path)
                save_tensors(path, build(), {})
                tensors = _read(path)
    if tensors is None:
        raise UserError(f"{path} cannot be read again after it was written; is its disk in order?")
    if _compared is not None and path not in _compared:
        _compared.add(path)
        _compare(path, tensors, build, derived)
    if not derived:
        note(name, _content[path], path)
    return tensors


_compared: set[Path] | None = None
"""Files compared with their sources already; None where nothing is to be compared."""


@contextlib.contextmanager
def comparing() -> Iterator[None]:
    """While the block runs every cache that is read is made again from its source and compared.

    Raises:
        UserError: one differs.
    """
    global _compared
    before, _compared = _compared, set()
    try:
        yield
    finally:
        _compared = before


def compares() -> bool:
    """Whether caches are to be compared with their sources now."""
    return _compared is not None


def to_be_compared(path: Path) -> bool:
    """Whether ``path``, which is no cache of tensors, is to be compared with its source now; asked once."""
    if _compared is None or path in _compared:
        return False
    _compared.add(path)
    return True


def _compare(path: Path, tensors: Mapping[str, Tensor], build: Callable[[], Mapping[str, Tensor]], near: bool) -> None:
    try:
        fresh = build()
    except MissingError as error:
        log.warning("%s is what was written, but cannot be compared with its source: %s", path, error)
        return
    for name in sorted({*fresh, *tensors}):
        if name not in fresh or name not in tensors or not _same(fresh[name], tensors[name], near):
            raise UserError(f"{name} in {path} is not what its source gives; delete that file and prepare again")


def _same(a: Tensor, b: Tensor, near: bool) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.allclose(a, b, rtol=1e-4, equal_nan=True) if near else torch.equal(a, b)


_opened: dict[Path, str] = {}
"""Cache files read by this process -> their checksum, "" where there is none; :data:`_REBUILT` once one was damaged."""
_content: dict[Path, str] = {}
"""Of the tensors alone."""
_REBUILT = "rebuilt"


def forget() -> None:
    """Start anew to note which cache files are read."""
    _opened.clear()


def audit() -> None:
    """Say if one of the cache files read by this process was not what had been written, or cannot be checked.

    Raises:
        UserError: a file was damaged and has been built again, or has no checksum.
    """
    found = dict(_opened)
    forget()
    for path, value in found.items():
        if value == _REBUILT:
            raise UserError(
                f"{path} was damaged or changed after it was written; it has been built again, verify once more, and "
                "do not trust runs that used it"
            )
        if not value:
            raise UserError(f"{path} was written without a checksum; delete it and prepare again")


def _read(path: Path) -> dict[str, Tensor] | None:
    if not path.is_file():
        return None
    try:
        tensors, header = load_tensors(path)
    except (SafetensorError, OSError, UserError):
        log.warning("%s is damaged or was changed after it was written; it is built again", path)
        path.unlink(missing_ok=True)
        _opened[path] = _REBUILT
        return None
    if _opened.get(path) != _REBUILT:
        _opened[path] = header.get(KEY, "")
    # a header of its checksum alone has no part in it; older files kept their settings there too
    _content[path] = header[KEY] if set(header) == {KEY} else checksum(tensors)
    return tensors
