"""Readers of what the released code made (github.com/shenshuaijie/SDN): its networks and checkpoints, without its code.

Both kinds of files are zip archives with a pickle inside. A pickle is a program: here it runs in an unpickler that can
build tensors, plain values and inert objects that only hold their attributes, and refuses everything else, so nothing
that a file names is imported or called. The code that a TorchScript archive carries is not read at all.

- The shipped network ``..._125.pkl`` is TorchScript: ``conv1`` (d, 1, k), ``conv2`` (d, d, 1), ``conv3`` (1, d, 1) with
  their biases, 72 + 72 + 9 numbers, that compute::

      a_t = relu(conv1 of x_{t-k} .. x_{t-1})     b_t = relu(conv2(a_t) + a_t)     mem_t = conv3(b_t)

  which is :class:`sdn.network.ReducedSDN` with the identity added to ``conv2``.
- ``best_checkpoint.pth`` and ``last_checkpoint.pth`` of its fit are ``torch.save`` files: ``model`` is the state of the
  network before its reduction, ``metrics`` an object of its class ``utils.MetricsCheckpoint``.
"""

from __future__ import annotations

import collections
import math
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .lif import check_tau
from .network import ReducedSDN

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MOST_PICKLE, _MOST_STORAGE = 1 << 24, 1 << 30  # bytes: these are small networks
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,  # of torch, where sizes and strides do not fit; also RecursionError
    OverflowError,
    MemoryError,
)


class Inert:
    """Stands for an object of a class that is not imported: ``name`` of the class, and what it held in ``state``."""

    name = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.state: Any = {}

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __getitem__(self, key: str) -> Any:
        return self.state[key]


class _Unpickler(pickle.Unpickler):
    """Tensors, plain values and inert objects of the classes in ``stand_in``; nothing else."""

    def __init__(self, archive: zipfile.ZipFile, root: str, stand_in: re.Pattern[str]) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive, self._root, self._stand_in = archive, root, stand_in
        self._storages: dict[str, tuple[torch.dtype, bytearray]] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if self._stand_in.fullmatch(f"{module}.{name}"):
            return type("Inert", (Inert,), {"name": f"{module}.{name}", "__slots__": ()})
        raise UserError(f"it names {module}.{name}, which no file of the released code has")

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, bytearray]:
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not re.fullmatch(r"\d+", key):
            raise ValueError("a reference to something that is no storage")
        if key not in self._storages:
            raw = _read(self._archive, f"{self._root}/data/{key}", _MOST_STORAGE)
            if len(raw) < numel * dtype.itemsize:
                raise ValueError(f"storage {key} is too short")
            self._storages[key] = dtype, bytearray(raw)
        return self._storages[key]


def _tensor(storage: tuple[torch.dtype, bytearray], offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor:
    dtype, raw = storage
    numbers = [offset, *size, *stride]
    if any(not isinstance(n, int) or n < 0 for n in numbers) or len(size) != len(stride):
        raise ValueError("a tensor of impossible size")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else -1
    if (last + 1) * dtype.itemsize > len(raw) or math.prod(size) * dtype.itemsize > _MOST_STORAGE:
        raise ValueError("a tensor beyond its storage")
    if not math.prod(size):
        return torch.empty(size, dtype=dtype)
    return torch.frombuffer(raw, dtype=dtype).as_strided(size, stride, offset).clone()


def _parameter(data: Tensor, *rest: object) -> Tensor:
    return data


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > most or info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is larger than it may be, or packed")
    return archive.read(info)


def _open(path: str | os.PathLike[str], what: str, stand_in: str) -> tuple[Any, set[str]]:
    """The object in an archive of torch, and the names of its records without their common folder.

    Raises:
        UserError: no such file, no archive, damaged, or holding what no file of the released code has.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; name {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            root = next((name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")), None)
            if root is None or root.endswith("traced_inputs"):
                raise UserError(f"{path} is no file of torch, so not {what}")
            if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
                raise UserError(f"{path} was written on a big-endian machine, which this reader does not handle")
            if archive.getinfo(f"{root}/data.pkl").file_size > _MOST_PICKLE:
                raise UserError(f"{path} is far too large for {what}")
            content = _Unpickler(archive, root, re.compile(stand_in)).load()
    except UserError as error:
        text = str(error)
        raise error if text.startswith(str(path)) else UserError(f"{path} is not {what}: {text}") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged or not {what} ({error})") from error
    return content, {name.removeprefix(f"{root}/") for name in names}


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an archive of TorchScript, which carries its code beside its weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return any("/code/" in name for name in names) and any(name.endswith("/data.pkl") for name in names)


def read_network(path: str | os.PathLike[str], tau: float | None = None) -> ReducedSDN:
    """The released network in a TorchScript file, as a reduced SDN.

    Args:
        tau: the decay it was fitted for; None: what the file's name says, see :func:`tau_of`.

    Raises:
        UserError: not such a file, or nothing tells its tau, or its name says another one.
    """
    what = "a released TorchScript network"
    content, _ = _open(path, what, r"__torch__\..*")
    try:
        conv = [content[f"conv{i}"] for i in (1, 2, 3)]
        (w1, b1), (w2, b2), (w3, b3) = ((part["weight"], part["bias"]) for part in conv)
        d, _, k = w1.shape
        shapes = [tuple(w.shape) for w in (w1, w2, w3)] + [tuple(b.shape) for b in (b1, b2, b3)]
        right = shapes == [(d, 1, k), (d, d, 1), (1, d, 1), (d,), (d,), (1,)]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not {what}: it has no convolutions conv1, conv2, conv3") from error
    if not right:
        raise UserError(f"{path} is not {what}: its convolutions have the shapes {shapes[:3]}")
    tensors = {
        "conv_weight": w1[:, 0],
        "conv_bias": b1,
        "mix_weight": (w2[..., 0].double() + torch.eye(d, dtype=torch.float64)).to(w2.dtype),
        "mix_bias": b2,
        "out_weight": w3[0, :, 0],
        "out_bias": b3[0],
    }
    meta = {"source": f"released network {Path(path).name}"}
    try:
        return ReducedSDN(tensors, known_tau(path, tau), meta)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, float | int]]:
    """``(state, facts)`` of a checkpoint of the released fit: the tensors of its network by its own names, and plain
    numbers, ``epoch`` and the figures of the validation under ``val_...``, of the test under ``test_...``.

    Raises:
        UserError: not such a file.
    """
    what = "a checkpoint of the released fit"
    content, _ = _open(path, what, r"(utils|__main__)\.MetricsCheckpoint")
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not {what}: it has no entry 'model' with tensors")
    facts: dict[str, float | int] = {}
    if isinstance(content.get("epoch"), int):
        facts["epoch"] = content["epoch"]
    for key, prefix in (("metrics", "val"), ("test_metrics", "test")):
        metrics = content.get(key)
        held = metrics.state.get("data", {}) if isinstance(metrics, Inert) and isinstance(metrics.state, dict) else {}
        if isinstance(held, dict):
            facts |= {f"{prefix}_{name}": float(v) for name, v in held.items() if isinstance(v, (int, float))}
    return dict(state), facts


def tau_of(path: str | os.PathLike[str]) -> float | None:
    """The decay that a released file's name tells: 0.2 of ``...-tau_0.2.pt``, 0.125 of ``..._125.pkl``; or None."""
    name = Path(path).name
    if match := re.search(r"tau_(0?\.\d+)", name):
        return float(match[1])
    match = re.search(r"_(\d+)\.pkl$", name)
    return float(f"0.{match[1]}") if match else None


def known_tau(path: str | os.PathLike[str], tau: float | None) -> float:
    """``tau`` as the user gave it, else as the file's name tells.

    Raises:
        UserError: nobody tells it, it lies outside (0, 1), or user and name disagree.
    """
    named = tau_of(path)
    said = named if tau is None else tau
    if said is None:
        raise UserError(f"nothing tells for which tau {path} was made; say it, as in python -m sdn.convert --tau 0.125")
    if tau is not None and named is not None and not math.isclose(tau, named, rel_tol=1e-9):
        raise UserError(f"{path} is by its name for tau {named}, not {tau}; rename it if the name is wrong")
    return check_tau(said)
