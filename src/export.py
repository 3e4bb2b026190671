"""``python -m src.export CKPT FILE``: a trained network as one safetensors file, as ONNX, or as a page that runs it.

The ending of FILE decides: ``.safetensors`` is read back by ``models.spike.load`` without Hydra or Lightning,
``.onnx`` by any ONNX runtime. Both carry what a user needs: class names, input scaling, sampling step, tokens, tau, and
from the run's ``record.json`` its command, versions and figures. ``.html`` is a page for any browser, with weights,
engine and samples of the test set inside; it may hold several networks, also network files and shipped ones, by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdn.errors import UserError, door
from sdn.named import Allow
from src.registry import REGISTRY

if TYPE_CHECKING:
    from models.spike.network import Network
    from src.module import SequenceModule


ENDINGS: tuple[str, ...] = (".safetensors", ".onnx", ".html")


@door
def main(argv: list[str] | None = None) -> None:
    """Convert one checkpoint, or make a page of one or more networks."""
    parser = argparse.ArgumentParser(prog="python -m src.export", description=__doc__)
    parser.add_argument("network", nargs="+", help="a checkpoint of python -m train; for a page also a network file")
    parser.add_argument("file", type=Path, help="where to: NAME.safetensors, NAME.onnx or NAME.html")
    parser.add_argument("--samples", type=int, help="page: samples of the test set (default 100, fewer if long)")
    parser.add_argument("--view", help="page: image, to draw on, or series (default: by the data)")
    parser.add_argument("--name", action="append", default=[], help="page: what a network is called, once for each")
    parser.add_argument("--allow", action=Allow)
    options = parser.parse_intermixed_args(argv)  # options may stand between networks and file
    ending = options.file.suffix
    if ending not in ENDINGS:
        raise UserError(
            f"the file must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, not {ending or options.file.name}"
        )
    if ending == ".html":
        from src.live.page import export_page

        export_page(options.network, options.file, options.name, options.samples, options.view)
    else:
        if len(options.network) > 1 or options.samples is not None or options.view or options.name:
            raise UserError("several networks, --samples, --view and --name are for a page; let the file end in .html")
        _export_one(options.network[0], options.file)
    print(f"wrote {options.file} ({options.file.stat().st_size / 2**20:.2f} MiB)")


def _export_one(checkpoint: str, file: Path) -> None:
    from models.spike.export import export_onnx
    from models.spike.network import save
    from src.module import SequenceModule

    network = network_of(SequenceModule.from_checkpoint(checkpoint), **run_facts(checkpoint))
    if file.suffix == ".onnx":
        export_onnx(network, file)
    else:
        save(network, file)


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

    Raises:
        UserError: an encoder or decoder that a description has no word for.
    """
    from models.spike.network import build

    _refuse_own_parts(module)
    config = module.config
    model = {key: value for key, value in config["model"].items() if key != "_name_"}
    spec = {
        "model": model,
        "encoder": _encoder(module),
        "decoder": _decoder(module),
        "facts": {
            "dataset": config["dataset"].get("_name_"),
            **_options(config["dataset"]),
            **_tau(module),
            **module.facts(),
            **facts,
        },
    }
    parts = ("backbone.", "encoder.", "decoder.")
    tensors = {name: value for name, value in module.state_dict().items() if name.startswith(parts)}
    if spec["decoder"]["kind"] == "adaptive":
        head = module.task.head.state_dict()
        tensors |= {f"decoder.{name}": value for name, value in head.items()}
    return build(spec, tensors).eval()


def _refuse_own_parts(module: SequenceModule) -> None:
    """A description names the encoders and decoders of :mod:`models.spike`, and those only."""
    from src.tasks.language_model import LanguageModel

    for part in ("encoder", "decoder"):
        name = (module.config[part] or {}).get("_name_")
        made = type(getattr(module, part))
        if name not in REGISTRY[part] if name is not None else not isinstance(module.task, LanguageModel):
            raise UserError(
                f"the {part} {made.__module__}.{made.__qualname__} is a class of yours, which a network file cannot "
                "describe; in Python src.module.SequenceModule.from_checkpoint gives the network whole, and "
                "torch.export takes it"
            )


def _options(dataset: dict[str, Any]) -> dict[str, Any]:
    """``{"dataset_options": ...}``, what makes the data what they are: their config but for name and place."""
    options = {key: value for key, value in dataset.items() if key not in ("_name_", "data_dir")}
    return {"dataset_options": options} if options else {}


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
