"""The data set file: what ``generate.py`` writes and the SDN fit reads.

One ``torch.load``-able dict (see ``dataset/README.md``): ``input``, ``mem``, ``spike``, each ``(number, T)``,
contiguous, time last; float32, float32, uint8; and ``header``, a dict of plain numbers and strings.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..lif import check_tau, lif_reference
from .archive import read_archive
from .laws import Law

FORMAT, VERSION = "sdn-data", 1
DTYPES: dict[str, torch.dtype] = {"input": torch.float32, "mem": torch.float32, "spike": torch.uint8}
_HELP = "make one with `python generate.py dataset`"
# Sequences of a file that are simulated again when it is loaded.
_CHECKED_ROWS, _CHECKED_STEPS = 8, 1024


def file_name(name: str, law: Law, timestep: int, number: int, tau: float) -> str:
    """E.g. ``training-mem-T1024-N(0.0,1.0)-50000-tau_0.2.pt``; other laws than white noise show in place of N."""
    return f"{name}-mem-T{timestep}-{law.tag}-{number}-tau_{tau}.pt"


@dataclass(frozen=True)
class NeuronData:
    """A loaded data set: ``input``, ``mem``, ``spike`` of shape ``(number, T)`` and its ``header``."""

    input: Tensor
    mem: Tensor
    spike: Tensor
    header: dict[str, int | float | str]
    path: Path

    def __len__(self) -> int:
        return len(self.input)

    @property
    def tau(self) -> float:
        return float(self.header["tau"])

    def fingerprint(self) -> list[int]:
        """Checksums of the three tensors, as the file's directory states them: cheap, and other data have others."""
        with zipfile.ZipFile(self.path) as archive:
            return [info.CRC for info in archive.infolist() if "/data/" in info.filename]


def load(path: str | os.PathLike[str], tau: float | None = None) -> NeuronData:
    """Map a data set into memory and check it; pages are read when they are used.

    Args:
        path: a file written by ``generate.py``.
        tau: if given, the decay the neuron must have had.

    Raises:
        UserError: missing, unreadable, truncated or foreign file; a tensor of another shape or type, or with numbers
            that are NaN, infinite or not those of the neuron in the header; another tau.
    """
    path = Path(path)
    found = read_archive(path, "a data set (`python generate.py dataset` makes one)", mmap=True)
    content = found if isinstance(found, dict) else {}
    header = content.get("header")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path} is not a data set of simulated neurons; {_HELP}")
    if header.get("version") != VERSION:
        raise UserError(f"{path} has format version {header.get('version')}, this code reads {VERSION}; {_HELP}")
    for name, dtype in DTYPES.items():
        value = content.get(name)
        if not isinstance(value, Tensor):
            raise UserError(f"{path} holds no tensor {name!r}; {_HELP}")
        if value.ndim != 2 or 0 in value.shape or value.shape != content["input"].shape:
            raise UserError(f"{name} in {path} has shape {tuple(value.shape)}, not the (number, T) of input; {_HELP}")
        if value.dtype != dtype:
            raise UserError(f"{name} in {path} is {value.dtype}, not {dtype}; {_HELP}")
        _check_values(name, value.contiguous(), path)
    try:
        fitted = check_tau(header["tau"])
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"the header of {path} holds no tau between 0 and 1; {_HELP}") from error
    data = NeuronData(
        content["input"].contiguous(), content["mem"].contiguous(), content["spike"].contiguous(), header, path
    )
    _check_neuron(data)
    if tau is not None and fitted != tau:
        raise UserError(
            f"{path} holds neurons with tau {fitted}, not {tau}; name a file made with generate.py --tau {tau}"
        )
    return data


def _check_values(name: str, value: Tensor, path: Path) -> None:
    low, high = (bound.item() for bound in torch.aminmax(value))
    if name == "spike" and high > 1:
        raise UserError(f"spike in {path} holds numbers other than 0 and 1; {_HELP}")
    # NaN is neither: aminmax hands it on.
    if not -float("inf") < low <= high < float("inf"):
        raise UserError(f"{name} in {path} holds NaN or infinite numbers; {_HELP}")


def _check_neuron(data: NeuronData) -> None:
    rows, steps = slice(_CHECKED_ROWS), slice(_CHECKED_STEPS)
    mem, spike, _ = lif_reference(data.input[rows, steps], data.tau)
    close = torch.allclose(mem, data.mem[rows, steps], rtol=1e-4, atol=1e-5)
    if not close or not torch.equal(spike, data.spike[rows, steps].float()):
        raise UserError(f"mem and spike in {data.path} are not those of a neuron with tau {data.tau}; {_HELP}")
