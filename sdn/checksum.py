"""Whether a file is still what was written: a flipped bit in a weight is a wrong network that nobody notices.

Two kinds of files carry their checksum inside. Safetensors files get one in their header, under ``checksum``: the
CRC-32 of the header's other entries and of every tensor. Files of ``torch.save`` are zip archives, and every record of
a zip has a CRC-32, which torch writes but does not compare; :func:`seal_archive` adds one over all bytes, the frame of
the zip included. A file without a checksum, of another program or older than this, is believed.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import UserError
from .files import atomic_path

KEY = "checksum"
_BLOCK = 1 << 20
_NO_COMMENT = b"\0\0"  # how a zip without a comment ends


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> str:
    """Eight hexadecimal digits that change with any name, type, shape or bit of ``tensors``, or entry of ``header``."""
    entries = {key: value for key, value in (header or {}).items() if key != KEY}
    value = zlib.crc32(json.dumps(entries, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(raw(tensor), value)
    return f"{value:08x}"


def raw(tensor: Tensor) -> memoryview | bytes:
    """The bytes of a tensor on the CPU, in its own memory if it is contiguous."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


def sealed(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, str]:
    """``header`` with the checksum of both."""
    return {**header, KEY: checksum(tensors, header)}


def damaged(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bool:
    """Whether a file's header holds a checksum that is not that of its content. One without is believed."""
    return KEY in header and header[KEY] != checksum(tensors, header)


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file with its checksum, atomically.

    Raises:
        UserError: as :func:`sdn.files.atomic_path`.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(plain, sealed(plain, header)))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``(tensors, header)`` of a safetensors file, mapped into memory, its checksum compared.

    Raises:
        UserError: the content is not what was written.
        SafetensorError, OSError: the file cannot be read.
    """
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if damaged(tensors, header):
        raise UserError(
            f"{path} was damaged or changed after it was written: its checksum is not that of its content; "
            "take another copy or make it again"
        )
    return tensors, header


def seal_archive(path: str | os.PathLike[str]) -> None:
    """Give a finished file of ``torch.save`` a checksum of all its bytes, before it is moved to its place.

    It becomes the comment of the zip, which readers of zips pass over.
    """
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END) - len(_NO_COMMENT)
        file.seek(size)
        if file.read() != _NO_COMMENT:
            raise ValueError(f"{path} is no zip without a comment")
        comment = _seal(file, size)
        file.seek(size)
        file.write(struct.pack("<H", len(comment)) + comment)


def damaged_archive(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a file of ``torch.save``: bytes that are not those written, or no archive at all; None if all
    is well. Reads the file once."""
    try:
        with zipfile.ZipFile(path) as archive:
            comment = archive.comment
            bad = None if comment else archive.testzip()
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        return f"it is no whole archive ({error})"
    if comment:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END) - len(comment) - len(_NO_COMMENT)
            return None if _seal(file, size) == comment else "its content is not what was written"
    return f"its part {bad} is not what was written" if bad is not None else None


def _seal(file: IO[bytes], n: int) -> bytes:
    """``crc32:...`` of the first ``n`` bytes."""
    file.seek(0)
    value = 0
    while n > 0 and (block := file.read(min(n, _BLOCK))):
        value = zlib.crc32(block, value)
        n -= len(block)
    return f"crc32:{value:08x}".encode()
