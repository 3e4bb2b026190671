"""Checksums in the files that we write, so that no changed bit passes for the truth.

A safetensors file carries its own in the header under ``checksum``: the SHA-256 of the other entries and of name,
dtype, shape and bytes of every tensor (1 GB a second or more). A file of ``torch.save`` is a zip: :func:`seal_zip` adds
the SHA-256 of all its bytes. Files without a checksum, of other programs or written before there was one, pass; of a zip
at least the CRC-32 of every record is compared, which torch writes but does not read.
"""

from __future__ import annotations

import hashlib
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


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """``sha256:...`` of ``tensors`` and ``header`` (an entry :data:`KEY` left out), whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(set(header) - {KEY}):
        digest.update(f"{len(name)} {name} {len(header[name])} {header[name]}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{len(name)} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file with its checksum, atomically.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(plain, {**header, KEY: checksum(plain, header)}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``(tensors, header)`` of a safetensors file, on the CPU, its checksum compared where it has one.

    Raises:
        UserError: the checksum differs.
        SafetensorError, OSError: the file cannot be read.
    """
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    check(path, tensors, header)
    return tensors, header


def check(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bool:
    """Compare what was read from ``path`` with its checksum; False if it has none.

    Raises:
        UserError: they differ.
    """
    if KEY not in header:
        return False
    if header[KEY] != checksum(tensors, header):
        raise _damaged(path)
    return True


def seal_zip(path: str | os.PathLike[str]) -> None:
    """Give a finished file of ``torch.save`` its checksum: call it before the file is moved to its place.

    The SHA-256 of all bytes becomes the zip's comment, which readers of zips pass over.
    """
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - len(_NO_COMMENT))
        if file.read() != _NO_COMMENT:
            raise ValueError(f"{path} is no zip without a comment")
        comment = f"sha256:{_sha256(file, size - len(_NO_COMMENT))}".encode()
        file.seek(size - len(_NO_COMMENT))
        file.write(struct.pack("<H", len(comment)) + comment)


def check_zip(path: str | os.PathLike[str]) -> bool:
    """Compare a file of ``torch.save`` with the checksum of :func:`seal_zip`, or where it has none every record with
    its CRC-32; False if the file is no zip.

    Raises:
        UserError: something differs, or the zip cannot be read.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            comment = archive.comment
            if not comment:
                for record in archive.infolist():
                    with archive.open(record) as stream:
                        while stream.read(_BLOCK):
                            pass
                return True
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise _damaged(path) from error
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if comment != f"sha256:{_sha256(file, size - len(comment) - len(_NO_COMMENT))}".encode():
            raise _damaged(path)
    return True


def _sha256(file: IO[bytes], n: int) -> str:
    """Of the first ``n`` bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while n > 0:
        block = file.read(min(n, _BLOCK))
        digest.update(block)
        n -= len(block) or n
    return digest.hexdigest()


def _damaged(path: str | os.PathLike[str]) -> UserError:
    return UserError(
        f"{path} is truncated, damaged or was changed: its checksum is not that of what it holds; "
        "take another copy or make it again"
    )
