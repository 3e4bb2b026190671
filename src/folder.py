"""The folder of a run: one owner at a time, and nothing of a run before is overwritten unasked."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdn.checksum import damaged_archive
from sdn.errors import UserError
from sdn.files import remove_parts, write_text
from sdn.lock import owned
from src.checkpoint import PREVIOUS, candidates

RESULTS = "results.json"
log = logging.getLogger(__name__)


def is_first_process() -> bool:
    """Whether this is the process of a run that writes its files, whoever started the others."""
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    # where no torchrun sets RANK a node is told by NODE_RANK, which Lightning reads only with its trainer
    elsewhere = "RANK" not in os.environ and os.environ.get("NODE_RANK", "0") != "0"
    return getattr(rank_zero_only, "rank", 0) in (0, None) and not elsewhere


@contextlib.contextmanager
def claimed(config: Mapping[str, Any], checkpoint: Path | None) -> Iterator[None]:
    """Own the current folder while the block runs; it then holds ``.hydra``, what Hydra composed.

    Args:
        checkpoint: what the run goes on from; one of this very folder is no foreign run.

    Raises:
        UserError: another process owns the folder, or a run left its files in it and ``train.overwrite`` is not set.
    """
    if not is_first_process():
        yield
        return
    folder = Path.cwd()
    with owned(folder):
        _make_room(folder, config["train"], checkpoint)
        _keep_hydra(folder, config)
        yield


def _make_room(folder: Path, train: Mapping[str, Any], checkpoint: Path | None) -> None:
    checkpoints = folder / "checkpoints"
    remove_parts(folder)
    remove_parts(checkpoints)
    fits = train["mode"] == "fit"
    goes_on = fits and checkpoint is not None and checkpoint.resolve().parent == checkpoints.resolve()
    there = [path for path in [folder / RESULTS] if path.is_file()]
    there += candidates(checkpoints) if fits else []
    if goes_on:
        _set_torn_aside(checkpoints, checkpoint)
    elif there and train["overwrite"]:
        for path in there:
            if checkpoint is None or not path.samefile(checkpoint):
                path.unlink()
        log.info("replacing the run in %s", folder)
    elif there:
        what = "a finished run" if (folder / RESULTS).is_file() else "an interrupted run"
        on = candidates(checkpoints)
        going = f", go on with train.ckpt={on[0]}" if fits and on else ""
        raise UserError(
            f"{folder} holds {what}; choose another folder with hydra.run.dir=DIR{going}, or replace it with "
            "train.overwrite=true"
        )


def _set_torn_aside(checkpoints: Path, used: Path) -> None:
    """The last checkpoint is torn and the one before is used: what is torn must not take its place."""
    last = checkpoints / "last.ckpt"
    if used.name == PREVIOUS and last.is_file() and damaged_archive(last):
        last.replace(checkpoints / "last.ckpt.torn")


def _keep_hydra(folder: Path, config: Mapping[str, Any]) -> None:
    """What Hydra would have written before anybody could ask whose folder it is."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    write_text(folder / ".hydra/config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    write_text(folder / ".hydra/overrides.yaml", OmegaConf.to_yaml(hydra.overrides.task))
    write_text(folder / ".hydra/hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
