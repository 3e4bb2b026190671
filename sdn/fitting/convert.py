"""``python -m sdn.convert FILE OUT``: what the released code made becomes a file of ours.

What FILE is decides, not its name: a released network (TorchScript) or a checkpoint of the released fit becomes a
reduced SDN, a released data set becomes one of ours. No code of the file is run.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError, door
from ..files import atomic_path
from ..lif import lif_reference
from ..network import SDN, ReducedSDN
from ..released import is_torchscript, known_tau, read_checkpoint, read_network
from ..weights import save_reduced
from .archive import open_archive, read_archive
from .data import DTYPES, FORMAT, VERSION
from .metrics import SpikeMetrics, SpikeScore
from .reduce import reduce

_ROWS, _STEPS = 200, 1024  # on which a converted network is judged
_DOUBT = 0.1  # wrong over true spikes of white noise; without any memory it is that bad at tau 0.125
_CHUNK = 1 << 22  # numbers of a data set converted at once


@door
def main(argv: list[str] | None = None) -> None:
    """Convert one file and say what came out."""
    parser = argparse.ArgumentParser(prog="python -m sdn.convert", description=__doc__)
    parser.add_argument("file", type=Path, help="NAME_125.pkl, best_checkpoint.pth or a data set NAME-tau_0.2.pt")
    parser.add_argument("out", type=Path, help="NAME.safetensors of a network, NAME.pt of a data set")
    parser.add_argument("--tau", type=float, default=None, help="decay it was made for, where the name does not tell")
    options = parser.parse_args(argv)
    if options.out.exists() and options.out.samefile(options.file):
        raise UserError("OUT is FILE itself; name another file")
    kind = kind_of(options.file)
    if kind == "data set":
        _ending(options.out, ".pt", kind)
        rows, steps = convert_data(options.file, options.out, options.tau)
        print(f"wrote {options.out}: {rows:,} sequences of {steps:,} steps, spikes as bytes, time contiguous")
        return
    _ending(options.out, ".safetensors", kind)
    if kind == "network":
        sdn = read_network(options.file, options.tau)
    else:
        state, facts = read_checkpoint(options.file)
        tau = known_tau(options.file, options.tau)
        sdn = reduce(rebuild(state, options.file), tau, {"source": f"released {options.file.name}", **facts})
    score = judge(sdn)
    save_reduced(sdn, options.out)
    print(f"wrote {options.out}: an SDN of {sdn.n_weights()} weights for tau {sdn.tau}")
    print(
        f"against the exact neuron on {score.steps:,} steps of white N(0, 1): wrong / true spikes {score.ratio:.4f}, "
        f"mean error of the potential {score.mae_mean:.4f}" + _doubt(score)
    )


def _ending(out: Path, ending: str, kind: str) -> None:
    if out.suffix != ending:
        raise UserError(f"a {kind} is written as {ending}, not as {out.name!r}")


def _doubt(score: SpikeScore) -> str:
    return "; so much is no surrogate: is tau right?" if score.ratio > _DOUBT else ""


def kind_of(path: str | os.PathLike[str]) -> str:
    """``network``, ``checkpoint`` or ``data set``.

    Raises:
        UserError: none of them.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is a folder; name a file" if path.is_dir() else f"{path} does not exist")
    if is_torchscript(path):
        return "network"
    try:
        read_checkpoint(path)
    except UserError as why_not:
        try:
            content = read_archive(path, "a file of the released code", mmap=True)
        except UserError:
            raise why_not from None
        if isinstance(content, dict) and {"input", "mem", "spike"} <= content.keys():
            return "data set"
        raise UserError(
            f"{path} is neither a released network, nor a checkpoint of the released fit, nor a released data set"
        ) from None
    return "checkpoint"


_NAMES = (
    (r"spatial_layers\.(\d+)\.0\.", r"layers.\1.depthwise."),
    (r"spatial_layers\.(\d+)\.1\.", r"layers.\1.depthwise_norm."),
    (r"feature_layers\.(\d+)\.0\.", r"layers.\1.pointwise."),
    (r"feature_layers\.(\d+)\.1\.", r"layers.\1.pointwise_norm."),
)


def rebuild(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> SDN:
    """Our network with the weights of a released one, whose convolutions and norms have other names.

    Raises:
        UserError: the weights are those of another network.
    """
    renamed = {}
    for name, value in state.items():
        for theirs, ours in _NAMES:
            name = re.sub(rf"^{theirs}", ours, name)
        renamed[name] = value
    try:
        (d_model, _, kernel_size) = renamed["layers.0.depthwise.weight"].shape
        n_layers = 1 + max(int(name.split(".")[1]) for name in renamed if name.startswith("layers."))
        sdn = SDN(d_model, kernel_size, n_layers)
        sdn.load_state_dict(renamed)
    except (KeyError, ValueError, RuntimeError) as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"the network in {path} is not the released one: {detail}") from error
    return sdn.eval()


@torch.no_grad()
def judge(sdn: ReducedSDN) -> SpikeScore:
    """The network against the exact neuron of its tau on fresh white currents."""
    current = torch.randn(_ROWS, _STEPS, generator=torch.Generator().manual_seed(0))
    mem, spike, _ = lif_reference(current, sdn.tau)
    metrics = SpikeMetrics()
    metrics.update(sdn(current), mem, current, spike)
    return metrics.score()


def convert_data(
    path: str | os.PathLike[str], out: str | os.PathLike[str], tau: float | None = None
) -> tuple[int, int]:
    """Write a released data set as one of ours, a part at a time; ``(sequences, steps)``.

    Raises:
        UserError: not such a file, nothing tells its tau, or mem and spike are not those of such a neuron.
    """
    content = read_archive(path, "a released data set", mmap=True)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), Tensor) for name in DTYPES):
        raise UserError(f"{path} is no data set: it must hold the tensors {', '.join(DTYPES)}")
    if "header" in content:
        raise UserError(f"{path} is a data set of ours already; there is nothing to convert")
    parts = {name: content[name] for name in DTYPES}
    shape = tuple(parts["input"].shape)
    if len(shape) != 2 or 0 in shape or any(tuple(value.shape) != shape for value in parts.values()):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in parts.items())
        raise UserError(f"input, mem and spike of {path} must have one shape (number, T), not {shapes}")
    tau = known_tau(path, tau)
    _check(parts, tau, path)
    rows = max(1, _CHUNK // shape[1])
    with (
        atomic_path(out) as temporary,
        open_archive(temporary, {n: (t, shape) for n, t in DTYPES.items()}, {"header": _header(path, tau)}) as archive,
    ):
        for name, dtype in DTYPES.items():
            with archive.record(name) as stream:
                for start in range(0, shape[0], rows):
                    stream.write(parts[name][start : start + rows].to(dtype).contiguous().numpy())
    return shape


def _check(parts: Mapping[str, Tensor], tau: float, path: str | os.PathLike[str]) -> None:
    """The first sequences must be those of a neuron with this tau."""
    current, mem, spike = (parts[name][:8].float() for name in DTYPES)
    true_mem, true_spike, _ = lif_reference(current, tau)
    if not torch.allclose(true_mem, mem, rtol=1e-4, atol=1e-5) or not torch.equal(true_spike, spike):
        raise UserError(f"mem and spike in {path} are not those of a neuron with tau {tau}; give the right --tau")


def _header(path: str | os.PathLike[str], tau: float) -> dict[str, int | float | str]:
    """Ours, with the law of the input as far as the file's name tells it."""
    header: dict[str, int | float | str] = {"format": FORMAT, "version": VERSION, "tau": tau}
    header |= {"v_th": 1.0, "reset": "hard", "u_r": 0.0, "law": "unknown", "source": f"released {Path(path).name}"}
    if match := re.match(r"(.+?)-mem-T\d+-N\(([-\d.e]+),([-\d.e]+)\)-\d+-tau", Path(path).name):
        header |= {"name": match[1], "law": "white", "mean": float(match[2]), "std": float(match[3])}
    return header
