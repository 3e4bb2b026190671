"""``python -m src.ship RUN NAME``: the best weights of a finished run become a network that ships.

Writes ``NAME.safetensors`` for ``models.spike.load("NAME")``, its card ``NAME.md``, and a few test samples with the
answers to them, by which the tests know the network again. Everything on the card comes from the run's
``record.json``; what was exported is tested on the whole test set before it is written, and must give that figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdn.errors import UserError, door

if TYPE_CHECKING:
    from models.spike.network import Network

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "tests" / "models" / "shipped"


@door
def main(argv: list[str] | None = None) -> None:
    """Ship one run."""
    from models.spike.shipped import PRETRAINED

    parser = argparse.ArgumentParser(prog="python -m src.ship", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run of python -m train")
    parser.add_argument("name", help="what models.spike.load is to call it")
    parser.add_argument("--about", required=True, help="one sentence: what the network does")
    parser.add_argument("--limits", required=True, help="where not to trust it")
    parser.add_argument("--examples", type=int, default=4, help="test samples kept for the tests")
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="folder of the network and its card")
    parser.add_argument("--examples-out", type=Path, default=EXAMPLES, help="folder of the samples")
    options = parser.parse_args(argv)
    network = ship(options.run, options.name, options.about, options.limits)
    from models.spike.network import save

    save(network, options.out / f"{options.name}.safetensors")
    write_card(network, options.name, options.out)
    keep_examples(network, options.run, options.examples, options.examples_out / f"{options.name}.safetensors")
    print(f"wrote {options.out / options.name}.safetensors, its card and {options.examples} examples")


def ship(run: Path, name: str, about: str, limits: str) -> Network:
    """The network of the best weights of ``run``, its facts taken from the record.

    Raises:
        UserError: the run is not finished or was not tested, its weights are gone, or the exported network does not
            answer the test set as the record says.
    """
    from src.export import network_of
    from src.restore import restore
    from src.results.collect import facts_of, portable, read

    record = portable(read(run))
    if not record["test"] or "test/loss" not in record["test"]["figures"]:
        raise UserError(f"the run in {run} was not tested; its card would have no figure")
    module, data = restore(run / "checkpoints" / "best.ckpt")
    facts = {
        "name": name,
        "about": about,
        "limits": limits,
        **facts_of(record),
        "steps": max(record["epochs"]["step"]),
    }
    network = network_of(module, **facts)
    _compare(figures(network, module, data), facts["figures"])
    return network


def figures(network: Network, module: Any, data: Any) -> dict[str, float]:
    """Loss and accuracy of the network alone over the whole test set."""
    import torch

    from src.restore import batches
    from src.tasks.metrics import Totals

    totals = Totals()
    with torch.no_grad():
        for x, y, z in batches(module, data, "test"):
            totals.add(module.task(network(x, z.get("lengths")), y, z))
    return module.task.report(totals.means())


def _compare(found: Mapping[str, float], recorded: Mapping[str, float]) -> None:
    for name in ("loss", "accuracy"):
        expected = recorded.get(f"test/{name}")
        if expected is not None and abs(found[name] - expected) > 2e-3 * max(1.0, abs(expected)):
            raise UserError(
                f"the exported network has test/{name} {found[name]:.5f} where the record says {expected:.5f}; "
                "the run's checkpoint, code or data have changed"
            )


def write_card(network: Network, name: str, folder: Path) -> Path:
    """``NAME.md``: what the header of the network says, for people."""
    from sdn.files import write_text

    facts = network.facts
    rates = facts["firing_rates"] or {}
    rows = [(key, f"{value:.4f}") for key, value in facts["figures"].items() if key not in ("epoch", "step", "seconds")]
    rows = [row for row in rows if "firing_rate" not in row[0]]
    rows += [(f"firing rate, {'mean' if key == 'mean' else key}", f"{value:.4f}") for key, value in rates.items()]
    model = network.spec["model"]
    d_state = 2 * network.backbone.layers[0].kernel.n_modes
    layers = f"{model['n_layers']} layer(s) of width {model['d_model']}, d_state {d_state}"
    way = "bidirectional" if network.backbone.layers[0].bidirectional else "causal, so it streams"
    text = f"""# {name}.safetensors

{facts["about"]}

`models.spike.load("{name}")`: {facts["parameters"]["total"]:,} parameters, {layers}, {way}.

## Made by

```
{facts["command"]}
```

{facts["steps"]:,} steps in {facts["seconds"] / 60:.0f} min on {facts["hardware"]["threads"]} thread(s) of an \
{facts["hardware"]["cpu"]}, torch {facts["versions"]["torch"]}; weights chosen by {facts["chosen_by"]}.

## Measured

| figure | value |
|---|---:|
{chr(10).join(f"| {key} | {value} |" for key, value in rows)}

## Limits

{facts["limits"]}
"""
    path = folder / f"{name}.md"
    write_text(path, text)
    return path


def keep_examples(network: Network, run: Path, count: int, path: Path) -> None:
    """The first ``count`` test samples and the classes that the network answers, every step's if it has one."""
    import torch
    from safetensors.torch import save_file

    from sdn.files import atomic_path
    from src.restore import first, restore

    module, data = restore(run / "checkpoints" / "best.ckpt")
    x, y, z = first(module, data, "test", count)
    lengths = z.get("lengths")
    with torch.no_grad():
        answer = network(x, lengths).argmax(-1)
    small = x.to(torch.uint8 if not x.is_floating_point() else torch.int8)
    classes = {"y": y.to(torch.uint8), "answer": answer.to(torch.uint8)}
    tensors = {"x": small if torch.equal(small.to(x.dtype), x) else x.half(), **classes}
    tensors |= {} if lengths is None else {"lengths": lengths}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


if __name__ == "__main__":
    sys.exit(main())
