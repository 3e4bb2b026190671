"""Prepare, verify and preview data sets: ``python -m src.dataloaders {prepare,verify,preview} NAME [key=value ...]``.

NAME is an experiment (``listops``, ``pathx``, ...) or a pipeline (``arrays``, ``audio``, ...); keys are those of a
training run, such as ``dataset.workers=2`` or ``dataset.path=my.npz``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sdn.errors import UserError, door

if TYPE_CHECKING:
    from src.dataloaders.base import SequenceData

_SPLITS = ("train", "val", "test")


@door
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.number < 1:
        raise UserError("-n must be at least 1")
    from src.dataloaders.cache import forget

    forget()
    data = _open(options.name, options.overrides)
    if options.action == "prepare":
        _report(options.name, data)
    elif options.action == "verify":
        _verify(data)
        _report(options.name, data)
        print("verified")
    else:
        _preview(options.name, data, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m src.dataloaders", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "action",
        choices=("prepare", "verify", "preview"),
        help="prepare: download or generate, and cache; verify: checksums and every sample of evaluation; "
        "preview: some samples",
    )
    parser.add_argument("name", metavar="NAME", help="experiment or data set, such as listops, pathx or wt2")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as dataset.workers=2")
    parser.add_argument("-n", "--number", type=int, default=24, help="samples of a preview (default 24)")
    parser.add_argument("-s", "--split", choices=_SPLITS, default="train", help="split of a preview (default train)")
    parser.add_argument("-o", "--output", type=Path, help="picture of a preview (default NAME.png here)")
    return parser


def _open(name: str, overrides: list[str]) -> SequenceData:
    """The data set of an experiment's or data set's configuration.

    Raises:
        UserError: there is no such configuration, or a key is wrong.
    """
    from src.config import CONFIGS, compose
    from src.dataloaders.check import open_data
    from src.registry import suggestion

    experiments = {path.stem for path in (CONFIGS / "experiment" / "spikingssm").glob("*.yaml")}
    pipelines = {path.stem for path in (CONFIGS / "pipeline").glob("*.yaml")}
    datasets = {path.stem for path in (CONFIGS / "dataset").glob("*.yaml")}
    if name in experiments:
        chosen = f"experiment=spikingssm/{name}"
    elif name in pipelines:
        chosen = f"pipeline={name}"
    elif name in datasets:
        chosen = f"dataset={name}"
    else:
        raise UserError(f"there is no experiment or data set {name!r}{suggestion(name, experiments | datasets)}")
    return open_data(compose(chosen, *overrides)["dataset"])


def _report(name: str, data: SequenceData) -> None:
    sizes = ", ".join(f"{len(getattr(data, split)):,} {split}" for split in _SPLITS)
    kind = f"{data.n_tokens:,} tokens" if data.n_tokens else f"{data.d_input} number(s) a step"
    length = f", at most {data.l_max:,} steps" if data.l_max else ""
    print(f"{name}: {sizes}; {kind}{length}, {data.d_output:,} outputs")
    if data.val is data.test:
        print("validation and test are the same samples")


def _verify(data: SequenceData) -> None:
    """Checksums, then every sample of val and test and a thousand of train: values and targets in range.

    Raises:
        UserError: a value or target that cannot be.
    """
    import torch
    from tqdm import tqdm

    from src.dataloaders.cache import audit
    from src.dataloaders.preview import fetch, spread

    audit()
    data.verify()
    for split in _SPLITS:
        n = len(getattr(data, split))
        indices = spread(n, 1000) if split == "train" else list(range(n))
        batches = [indices[i : i + 32] for i in range(0, len(indices), 32)]
        for batch in tqdm(batches, desc=split, unit="batch", disable=None):
            x, y, z = fetch(data, split, batch)
            where = f"{split} samples {batch[0]} to {batch[-1]}"
            if data.n_tokens is not None and not 0 <= int(x.min()) <= int(x.max()) < data.n_tokens:
                raise UserError(f"{where} hold token ids outside 0..{data.n_tokens - 1}; delete the cache and prepare")
            if data.n_tokens is None and not bool(torch.isfinite(x).all()):
                raise UserError(f"{where} hold values that are not finite; delete the cache and prepare")
            if y.is_floating_point():
                if not bool(torch.isfinite(y).all()):
                    raise UserError(f"{where} hold targets that are not finite; delete the cache and prepare")
            elif int(y.max()) >= data.d_output or (y.ndim == 1 and int(y.min()) < 0):
                raise UserError(f"{where} hold classes outside 0..{data.d_output - 1}; delete the cache and prepare")
            if "lengths" in z and not 0 < int(z["lengths"].min()) <= int(z["lengths"].max()) <= x.shape[1]:
                raise UserError(f"{where} hold an empty sequence or a length beyond its end; check the source files")


def _preview(name: str, data: SequenceData, options: argparse.Namespace) -> None:
    from src.dataloaders import preview

    _report(name, data)
    print(preview.text(data, options.split, min(options.number, 8)))
    path = options.output or Path(f"{name}.png")
    if data.n_tokens is None and preview.sheet(data, options.split, options.number, path):
        print(f"{path}: {options.split} samples, ordered by class")


if __name__ == "__main__":
    sys.exit(main())
