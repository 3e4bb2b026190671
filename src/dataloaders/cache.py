"""Caches of processed data: tensors in one safetensors file, named by everything that shaped them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdn.files import atomic_path
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
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """The tensors ``build()`` returns, read from the cache if the same ``settings`` were built before.

    The file is ``cache_root()/name-<fingerprint of settings>.safetensors``; put a ``version`` among the settings
    and raise it when the meaning of the tensors changes. Several processes may call this at once: one builds, the
    others wait. A damaged file is built again. Loading maps the file into memory.
    """
    path = cache_root() / f"{name}-{fingerprint(settings)}.safetensors"
    if (tensors := _read(path)) is not None:
        return tensors
    with locked(path.with_suffix(".lock")):
        if (tensors := _read(path)) is None:
            log.info("preparing %s once, into %s", name, path)
            built = {key: value.contiguous() for key, value in build().items()}
            header = {"settings": json.dumps(settings, sort_keys=True, default=str)}
            header |= {key: json.dumps(value) for key, value in (meta or {}).items()}
            with atomic_path(path) as temporary:
                mode = temporary.stat().st_mode
                save_file(built, temporary, metadata=header)
                temporary.chmod(mode)  # it replaces the file by one that only its owner may read
            tensors = load_file(path)
    return tensors


def _read(path: Path) -> dict[str, Tensor] | None:
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        path.unlink(missing_ok=True)
        return None
