"""The file of a reduced SDN: safetensors, with a header that says which neuron it imitates.

Tensors: the buffers of :class:`sdn.network.ReducedSDN` in float32 (or float64). Header (all values are text):
``format`` = "sdn-reduced", ``version``, ``tau``, ``kernel_size``, ``d_model``, ``n_layers``, ``n_weights``,
``checksum`` (:mod:`sdn.checksum`) and ``meta``: the facts of the fit as JSON (data law, seed, epochs, figures).
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .checksum import damaged, save_tensors
from .errors import UserError
from .lif import check_tau
from .network import ReducedSDN

FORMAT, VERSION = "sdn-reduced", "1"
PRETRAINED = Path(__file__).parent / "pretrained"
_HELP = "make one with `python train.py --training FILE --save DIR` or convert.ipynb"


def save_reduced(sdn: ReducedSDN, path: str | os.PathLike[str]) -> None:
    """Write ``sdn`` to ``path`` atomically.

    Raises:
        UserError: the folder cannot be written, or ``sdn.meta`` holds more than plain numbers, text, lists and dicts.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "tau": repr(sdn.tau),
        "kernel_size": str(sdn.kernel_size),
        "d_model": str(sdn.d_model),
        "n_layers": str(sdn.n_layers),
        "n_weights": str(sdn.n_weights()),
    }
    try:
        header["meta"] = json.dumps(sdn.meta, sort_keys=True)
    except TypeError as error:
        raise UserError(f"the facts kept with an SDN must be plain numbers and text: {error}") from error
    save_tensors(path, dict(sdn.named_buffers()), header)


def pretrained_taus() -> list[float]:
    """The decays for which a fitted SDN ships with this package."""
    return sorted(float(path.stem.removeprefix("tau_")) for path in PRETRAINED.glob("tau_*.safetensors"))


def pretrained_path(tau: float) -> Path:
    """The shipped file for ``tau``; :class:`UserError` where none ships."""
    value = check_tau(tau)
    path = PRETRAINED / f"tau_{value}.safetensors"
    if not path.is_file():
        ships = ", ".join(map(str, pretrained_taus())) or "none"
        raise UserError(
            f"no fitted SDN ships for tau {value} (shipped: {ships}); fit one with generate.py --tau {value} and "
            "train.py --training, or use the exact neuron (sltt or bptt)"
        )
    return path


def load_reduced(source: str | os.PathLike[str] | float, tau: float | None = None) -> ReducedSDN:
    """The reduced SDN in a file, or the shipped one for a decay; on the CPU.

    A file may also be the network that the released code ships, see :func:`sdn.released.read_network`.

    Args:
        source: a file's path, or the decay tau as a number.
        tau: if given, the decay the caller's neuron has: a file fitted for another one is refused.

    Raises:
        UserError: no such file, not a reduced SDN, a damaged file, or another tau.
    """
    if isinstance(source, (int, float)):
        path = pretrained_path(source)
        tau = float(source) if tau is None else tau
    else:
        try:
            path = Path(source)
        except TypeError as error:
            raise UserError(f"an SDN is named by its file or its decay, not by {source!r}") from error
    if not path.is_file():
        what = "is a folder; name the file in it, such as sdn.safetensors" if path.is_dir() else "does not exist"
        raise UserError(f"the SDN file {path} {what}; {_HELP}")
    if zipfile.is_zipfile(path):
        return _released(path, tau)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error}); {_HELP}") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file but not a reduced SDN; {_HELP}")
    if header.get("version") != VERSION:
        raise UserError(f"{path} has format version {header.get('version')}, this code reads {VERSION}; {_HELP}")
    try:
        fitted, meta = float(header["tau"]), json.loads(header.get("meta", "{}"))
        sdn = ReducedSDN(tensors, fitted, meta)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"the header of {path} is damaged ({error}); {_HELP}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if damaged(tensors, header):
        raise UserError(f"{path} is damaged: its checksum is not that of its content; {_HELP}")
    if tau is not None and not math.isclose(fitted, tau, rel_tol=1e-9):
        raise UserError(
            f"{path} imitates a neuron with tau {fitted}, not {tau}; set tau to {fitted}, "
            f"or fit an SDN to data made with generate.py --tau {tau}"
        )
    return sdn


def _released(path: Path, tau: float | None) -> ReducedSDN:
    """A zip archive is a file of torch: the released network, or something that must be converted."""
    from .released import is_torchscript, read_network

    if not is_torchscript(path):
        raise UserError(
            f"{path} is damaged or not a safetensors file (it is one of torch.save; a checkpoint of the released code "
            f"becomes one by `python -m sdn.convert FILE OUT`); {_HELP}"
        )
    return read_network(path, tau)
