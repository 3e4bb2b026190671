"""Whether a file is still what was written: a flipped bit in a weight is a wrong network that nobody notices.

Two kinds of files carry their checksum inside. Safetensors files get one in their header, under ``checksum``: the
CRC-32 of the header's other entries and of every tensor. Files of ``torch.save`` are zip archives, and every record of
a zip has a CRC-32, which torch writes but does not compare.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

KEY = "checksum"


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> str:
    """Eight hexadecimal digits that change with any name, type, shape or bit of ``tensors``, or entry of ``header``."""
    entries = {key: value for key, value in (header or {}).items() if key != KEY}
    value = zlib.crc32(json.dumps(entries, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_bytes(tensor), value)
    return f"{value:08x}"


def _bytes(tensor: Tensor) -> memoryview | bytes:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def sealed(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, str]:
    """``header`` with the checksum of both."""
    return {**header, KEY: checksum(tensors, header)}


def damaged(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bool:
    """Whether a file's header holds a checksum that is not that of its content. One without is believed."""
    return KEY in header and header[KEY] != checksum(tensors, header)


def damaged_archive(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a file of ``torch.save``: a record whose bytes are not those written, or no archive at all;
    None if all is well. Reads the file once."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        return f"it is no whole archive ({error})"
    return f"its part {bad} is not what was written" if bad is not None else None
