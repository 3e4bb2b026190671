"""Read a file of ``torch.save`` safely; write one record after the other, with only a part ever held in memory.

``torch.save`` needs all its tensors at once. The format itself is a plain zip of stored records, ``data.pkl`` (the
objects, tensors by reference) and ``data/0``, ``data/1``, ... (their bytes), so the standard library can stream it.
The file passes ``unzip -t``, is the same byte for byte for the same content, and loads with
``torch.load(path, weights_only=True, mmap=True)``.
"""

from __future__ import annotations

import collections
import contextlib
import io
import math
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch

from ..checksum import damaged_archive, seal_archive
from ..errors import UserError

# What torch.save uses, so that a mapped tensor starts on a cache line.
_ALIGNMENT = 64
_STORAGES = {torch.float32: torch.FloatStorage, torch.uint8: torch.ByteStorage}


class _Storage:
    """Stands for the bytes in ``data/{key}`` while pickling."""

    def __init__(self, dtype: torch.dtype, key: str, numel: int) -> None:
        self.reference = ("storage", _STORAGES[dtype], key, "cpu", numel)


class _Tensor:
    """Pickles as the contiguous tensor whose bytes follow later."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...], key: str) -> None:
        self.shape, self.storage = shape, _Storage(dtype, key, math.prod(shape))

    def __reduce__(self) -> tuple:
        stride = tuple(math.prod(self.shape[i + 1 :]) for i in range(len(self.shape)))
        return torch._utils._rebuild_tensor_v2, (
            self.storage,
            0,
            self.shape,
            stride,
            False,
            collections.OrderedDict(),
        )


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> tuple | None:
        return obj.reference if isinstance(obj, _Storage) else None


class Archive:
    """The open file; :meth:`record` must be entered once per tensor, in the order of the declaration."""

    def __init__(
        self,
        file: IO[bytes],
        container: zipfile.ZipFile,
        tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        plain: dict,
    ) -> None:
        self._file, self._zip = file, container
        self._sizes = {n: dtype.itemsize * math.prod(shape) for n, (dtype, shape) in tensors.items()}
        self._keys = {name: str(i) for i, name in enumerate(tensors)}
        pickled = io.BytesIO()
        objects = {n: _Tensor(dtype, shape, self._keys[n]) for n, (dtype, shape) in tensors.items()}
        _Pickler(pickled, protocol=2).dump({**objects, **plain})
        self._write("data.pkl", pickled.getvalue())
        self._write("byteorder", sys.byteorder.encode())

    @contextlib.contextmanager
    def record(self, name: str) -> Iterator[IO[bytes]]:
        """Yield the stream that takes exactly the bytes of tensor ``name`` (C order)."""
        with self._open(f"data/{self._keys[name]}", self._sizes[name]) as stream:
            start = self._file.tell()
            yield stream
            written = self._file.tell() - start
        if written != self._sizes[name]:
            raise ValueError(f"{name}: {written} bytes written, {self._sizes[name]} declared")

    def offset(self, name: str) -> int:
        """Where the bytes of tensor ``name``, already written, begin in the file; they can be read from now on."""
        self._file.flush()
        info = self._zip.getinfo(f"archive/data/{self._keys[name]}")
        return info.header_offset + _header_size(info)

    def finish(self) -> None:
        """Write what follows the tensors."""
        self._write("version", b"3\n")

    def _write(self, name: str, content: bytes) -> None:
        with self._open(name, len(content)) as stream:
            stream.write(content)

    def _open(self, name: str, size: int) -> IO[bytes]:
        info = zipfile.ZipInfo(f"archive/{name}")
        info.file_size = size
        info.extra = struct.pack("<HH", 0x4246, 0)
        padding = -(self._file.tell() + _header_size(info)) % _ALIGNMENT
        info.extra = struct.pack("<HH", 0x4246, padding) + bytes(padding)
        return self._zip.open(info, "w", force_zip64=_zip64(info))


def _zip64(info: zipfile.ZipInfo) -> bool:
    return info.file_size > 2**31 - 2**27


def _header_size(info: zipfile.ZipInfo) -> int:
    """Bytes between the start of a record's local header and its content (zip specification, 4.3.7 and 4.5.3)."""
    return 30 + len(info.filename) + len(info.extra) + (20 if _zip64(info) else 0)


@contextlib.contextmanager
def open_archive(
    path: str | os.PathLike[str], tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], plain: dict
) -> Iterator[Archive]:
    """Write ``{**tensors, **plain}`` to ``path``: declare dtype and shape of each tensor, then stream its bytes.

    Args:
        tensors: name -> (dtype, shape), float32 or uint8.
        plain: numbers, strings and containers of them, stored beside the tensors.
    """
    with open(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as container:
        archive = Archive(file, container, tensors, plain)
        yield archive
        archive.finish()
    seal_archive(path)


def read_archive(path: str | os.PathLike[str], what: str, mmap: bool = False) -> object:
    """The plain content of a file of ``torch.save`` or :func:`open_archive`, on the CPU.

    Args:
        what: what the file should be, for the message.
        mmap: map the tensors instead of reading them.

    Raises:
        UserError: missing, unreadable, truncated or damaged, or holding more than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is a folder, not {what}" if path.is_dir() else f"{path} does not exist; name {what}")
    try:
        if zipfile.is_zipfile(path) and (damage := damaged_archive(path)) is not None:
            raise UserError(
                f"{path} is truncated, damaged or was changed: {damage}; take another copy or make it again"
            )
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(f"{path} is truncated, damaged or not {what}") from error
