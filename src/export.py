"""``python -m src.export CKPT FILE``: a trained network as one safetensors file, or its step as ONNX.

The ending of FILE decides: ``.safetensors`` is read back by ``models.spike.load`` without Hydra or Lightning,
``.onnx`` by any ONNX runtime. Both carry what a user needs: class names, input scaling, sampling step, tokens, tau, and
from the run's ``record.json`` its command, versions and figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdn.errors import UserError, door
from sdn.named import Allow

if TYPE_CHECKING:
    from models.spike.network import Network
    from src.module import SequenceModule


@door
def main(argv: list[str] | None = None) -> None:
    """Convert one checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m src.export", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint of python -m train")
    parser.add_argument("file", type=Path, help="where to: NAME.safetensors or NAME.onnx")
    parser.add_argument("--allow", action=Allow)
    options = parser.parse_args(argv)
    if options.file.suffix not in (".safetensors", ".onnx"):
        raise UserError(f"the file must end in .safetensors or .onnx, not {options.file.suffix or options.file.name!r}")
    from models.spike.export import export_onnx
    from models.spike.network import save
    from src.module import SequenceModule

    module = SequenceModule.from_checkpoint(options.checkpoint)
    network = network_of(module, **run_facts(options.checkpoint))
    if options.file.suffix == ".onnx":
        export_onnx(network, options.file)
    else:
        save(network, options.file)
    print(f"wrote {options.file} ({options.file.stat().st_size / 2**20:.2f} MiB)")


def run_facts(path: str | Path) -> dict[str, Any]:
    """What is known of the run that saved the checkpoint: command, commit, versions, figures of these weights; empty
    where it left no record.

    Raises:
        UserError: the checkpoint cannot be read, or its weights are NaN or infinite.
    """
    from src.checkpoint import load_checkpoint
    from src.paths import resolve
    from src.restore import refuse_nan
    from src.results.collect import facts_of
    from src.results.record import FILE

    checkpoint = load_checkpoint(path)
    refuse_nan(checkpoint["state_dict"], path)
    found = resolve(path).resolve()
    file = found.parent.parent / FILE
    if not file.is_file():
        return {}
    record = json.loads(file.read_text(encoding="utf-8"))
    facts = facts_of(record, checkpoint["global_step"], found.name)
    return {key: value for key, value in facts.items() if value}


def network_of(module: SequenceModule, **facts: Any) -> Network:
    """The network of a training module, with a description that builds it anywhere.

    ``facts`` travel with it, beside the data set's name, what its inputs and outputs are
    (:meth:`src.dataloaders.base.SequenceData.facts`) and, where all neurons share one, their ``tau``.
    """
    from models.spike.network import build

    config = module.config
    model = {key: value for key, value in config["model"].items() if key != "_name_"}
    spec = {
        "model": model,
        "encoder": _encoder(module),
        "decoder": _decoder(module),
        "facts": {"dataset": config["dataset"].get("_name_"), **_tau(module), **module.facts(), **facts},
    }
    parts = ("backbone.", "encoder.", "decoder.")
    tensors = {name: value for name, value in module.state_dict().items() if name.startswith(parts)}
    if spec["decoder"]["kind"] == "adaptive":
        head = module.task.head.state_dict()
        tensors |= {f"decoder.{name}": value for name, value in head.items()}
    return build(spec, tensors).eval()


def _tau(module: SequenceModule) -> dict[str, float]:
    """``{"tau": ...}`` of leaky neurons whose decay is not learnt."""
    taus = {tau for layer in module.backbone.layers if isinstance(tau := getattr(layer.neuron, "tau", None), float)}
    return {"tau": taus.pop()} if len(taus) == 1 else {}


def _encoder(module: SequenceModule) -> dict[str, Any]:
    data, task = module.data, module.config["task"]
    name = (module.config["encoder"] or {}).get("_name_")
    if name == "linear":
        return {"kind": "linear", "d_input": data.d_input}
    if name == "embedding":
        return {"kind": "embedding", "n_tokens": data.n_tokens}
    if name == "conv":
        options = {key: value for key, value in module.config["encoder"].items() if key != "_name_"}
        read = {"d_input": data.d_input} if data.n_tokens is None else {"n_tokens": data.n_tokens}
        return {"kind": "conv", **read, **options}
    return {
        "kind": "adaptive",
        "n_tokens": data.n_tokens,
        "cutoffs": list(module.task.encoder.cutoffs),
        "div_val": task["div_val"],
    }


def _decoder(module: SequenceModule) -> dict[str, Any]:
    options = dict(module.config["decoder"] or {})
    name = options.pop("_name_", None)
    if name is None:
        return {"kind": "adaptive"}
    return {"kind": name, "d_output": module.data.d_output, **options}


if __name__ == "__main__":
    sys.exit(main())
