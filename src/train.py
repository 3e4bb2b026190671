"""Train, validate or test one experiment: ``python -m train experiment=spikingssm/NAME [key=value ...]``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sdn.errors import UserError, door
from sdn.files import write_text
from src.config import CONFIGS, explain, plain, register_resolvers, without_other_experiment
from src.inherit import Composed
from src.paths import resolve
from src.sweep import table

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from src.callbacks.interruption import Stopped
    from src.module import SequenceModule

MODES = ("fit", "validate", "test")
log = logging.getLogger(__name__)


def main() -> int:
    """The command line through Hydra; returns the exit code, 2 for a mistake of the user."""
    register_resolvers()
    sys.argv[1:] = without_other_experiment(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as they are, and we say them in one sentence
    return door(_compose_and_run)()


def _compose_and_run() -> None:
    try:
        _job()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error) from error


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def _job(config: DictConfig) -> float | None:
    """One run; the value is what a Hydra sweeper may optimise. A user's mistake ends the process, sweep and all."""
    register_resolvers()  # also in the processes of a launcher
    if HydraConfig.get().runtime.choices.get("experiment") == "none":
        log.info("no experiment: model, optimizer and trainer have the values of their own files, see --cfg job")
    results: dict[str, Any] = {}

    def work() -> None:
        named = [str(word) for word in HydraConfig.get().overrides.task]
        results.update(run(Composed(plain(config, named), named)))

    if code := door(work)():
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # what the jobs before found is not lost
            table(resolve(HydraConfig.get().sweep.dir))
        sys.exit(code)
    return results.get("best")


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Do what ``train.mode`` says in the current folder, with a configuration from :func:`src.config.compose`.

    The folder is this run's alone (:mod:`src.folder`). With a checkpoint the network is the checkpoint's
    (:mod:`src.inherit`). Ctrl-C and SIGTERM end a fit after the step being done, which is saved.

    Returns (and writes to ``results.json``) ``best``, the best value of the monitored figure, the last figures of
    training and validation, those of the test, and what the run consisted of.

    Raises:
        UserError: see there; nothing a user can mend ends in a traceback.
    """
    from src.callbacks.interruption import Stopped, signals_stop
    from src.folder import claimed
    from src.peers import lost

    if config["train"]["mode"] not in MODES:
        raise UserError(f"train.mode must be one of {', '.join(MODES)}, not {config['train']['mode']!r}")
    _quieten()
    try:
        with signals_stop(), contextlib.ExitStack() as stack:
            checkpoint = _checkpoint(config, stack)
            stack.enter_context(claimed(config, checkpoint))
            return _run(config, checkpoint)
    except Stopped as stop:
        raise _farewell(stop, config) from stop
    except Exception as error:
        if (text := lost(error)) is None:
            raise
        raise UserError(text + _go_on(config)) from error


def _run(config: dict[str, Any], checkpoint: Path | None) -> dict[str, Any]:
    import pytorch_lightning as pl
    import torch

    from src.callbacks.parameters import count
    from src.checkpoint import freeze_all_but_decoder, load_checkpoint, load_pretrained
    from src.dataloaders.check import open_data
    from src.dataloaders.contents import check_goes_on, warn_if_changed
    from src.faithful import notice
    from src.inherit import check_continues, judged, same_data
    from src.meaning import check_meaning
    from src.module import SequenceModule
    from src.restore import module_of
    from src.results.record import Record
    from src.trainer import make_trainer

    named = getattr(config, "overrides", None)
    kept = load_checkpoint(checkpoint) if checkpoint else None
    if kept and config["train"]["mode"] == "fit":
        check_continues(config, kept["config"], named, checkpoint, bool(kept.get("contents")))
    config = judged(config, kept["config"], named) if kept and config["train"]["mode"] != "fit" else dict(config)
    train = config["train"]
    start = time.perf_counter()
    torch.set_float32_matmul_precision(train["float32_precision"])
    pl.seed_everything(train["seed"], workers=True, verbose=False)

    data = open_data(config["dataset"])
    if kept and train["mode"] == "fit":
        check_goes_on(kept.get("contents"), data, checkpoint, train["accept_changed_data"])
    elif kept and same_data(config, kept["config"]):
        warn_if_changed(kept.get("contents"), data, checkpoint)
    if kept:
        check_meaning(kept.get("facts", {}), data.facts(), checkpoint)
    module = module_of(kept, checkpoint, config, data) if kept else SequenceModule(config, data)
    if train["pretrained_model_path"] and checkpoint is None:
        load_pretrained(
            module,
            train["pretrained_model_path"],
            train["pretrained_model_strict_load"],
            train["ignore_pretrained_layers"],
        )
    if train["pretrained_freeze_encoder"]:
        freeze_all_but_decoder(module)
    del kept
    trainer = make_trainer(config)
    trainer.callbacks.insert(0, record := Record(config))  # before the checkpoints, which carry its history
    if trainer.is_global_zero:
        log.info("run folder %s", Path.cwd())
        if said := notice(config):
            log.info(said)

    figures = _fit(trainer, module, config, checkpoint) if train["mode"] == "fit" else {}
    if train["mode"] == "validate":
        figures = trainer.validate(module, verbose=False)  # the module has the checkpoint's weights
        figures = {name: value for loader in figures for name, value in loader.items()}
        _say(trainer, "val", f"of {checkpoint}")
    if train["mode"] == "test" or (train["mode"] == "fit" and train["test"] and not trainer.fast_dev_run):
        figures |= _test(trainer, module, checkpoint)
    best = getattr(trainer.checkpoint_callback, "best_model_score", None)
    results = {
        "best": figures.get(train["monitor"]) if best is None else float(best),
        "monitor": train["monitor"],
        **figures,
        "parameters": count(module)["total"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seed": train["seed"],
        "seconds": round(time.perf_counter() - start, 2),
    }
    record.finish()
    if trainer.is_global_zero:
        write_text("results.json", json.dumps(results, indent=1) + "\n")
    return results


def _fit(
    trainer: pl.Trainer, module: SequenceModule, config: dict[str, Any], checkpoint: Path | None
) -> dict[str, float]:
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from src.callbacks.interruption import Interruption, Stopped

    if config["train"]["validate_at_start"]:
        trainer.validate(module, ckpt_path=checkpoint, weights_only=True, verbose=False)
        _say(trainer, "val", "at the start")
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        known = "val_check_interval", "Early stopping conditioned on metric"
        if not isinstance(error, MisconfigurationException) and not any(words in str(error) for words in known):
            raise
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    for callback in trainer.callbacks:
        if isinstance(callback, Interruption) and callback.requested is not None:
            raise Stopped(callback.requested)  # it came in the last epoch: all is trained and saved
    if trainer.global_step == 0 and not trainer.fast_dev_run and trainer.is_global_zero:
        log.warning("not one step was trained, as the limits of this run say: figures are those of the first weights")
    return {
        name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(("train/", "val/"))
    }


def _farewell(stop: Stopped, config: dict[str, Any]) -> BaseException:
    """What ends the process after a signal: code 130 or 143, and one line that says where to go on."""
    kept = stop.kept
    text = "stopped by the user" if stop.number == signal.SIGINT else "stopped by SIGTERM"
    text += "" if stop.step is None else f" after step {stop.step}"
    text += _go_on(config, kept)
    if stop.number == signal.SIGINT:
        return KeyboardInterrupt(text)
    print(text, file=sys.stderr, flush=True)
    return SystemExit(128 + stop.number)


def _go_on(config: dict[str, Any], kept: Path | None = None) -> str:
    """``; go on with train.ckpt=...``, of ``kept`` or the newest checkpoint of this folder; empty if there is none."""
    from src.checkpoint import candidates

    if kept is None or not kept.is_file():
        kept = next(iter(candidates(Path("checkpoints").resolve())), None)
    if config["train"]["mode"] != "fit" or kept is None:
        return ""
    again = "the same command again, or " if config["tolerance"]["id"] is not None else ""
    return f"; go on with {again}train.ckpt={kept}"


def _test(trainer: pl.Trainer, module: SequenceModule, checkpoint: Path | None) -> dict[str, float]:
    """Figures of the test set: after a fit of its best weights, otherwise of the given ones."""
    fitted = module.config["train"]["mode"] == "fit"
    chosen = (getattr(trainer.checkpoint_callback, "best_model_path", "") or None) if fitted else checkpoint
    if chosen and not Path(chosen).is_file():
        log.warning("the best checkpoint %s is gone; testing the last weights", chosen)
        chosen = None
    # without a fit the module has the checkpoint's weights already
    found = trainer.test(module, ckpt_path=chosen if fitted else None, weights_only=True, verbose=False)
    _say(trainer, "test", f"of {chosen}" if chosen else "of the last weights")
    return {name: value for loader in found for name, value in loader.items()}


def _say(trainer: pl.Trainer, split: str, what: str) -> None:
    from src.callbacks.progress import figures

    if trainer.is_global_zero:
        print(f"{figures(trainer.callback_metrics, [split]).strip()}  ({what})", flush=True)


def _checkpoint(config: dict[str, Any], stack: contextlib.ExitStack) -> Path | None:
    """Where to go on from, or whose weights to evaluate: what ``tolerance.id`` finds, else ``train.ckpt``.

    The id is held until ``stack`` is closed: no second process may run it."""
    from src.folder import is_first_process
    from src.paths import resolve
    from src.tolerance import last_checkpoint, own_id, remember, running

    tolerance, train = config["tolerance"], config["train"]
    path = resolve(train["ckpt"]) if train["ckpt"] else None
    if tolerance["id"] is not None and train["mode"] == "fit":
        run_id = own_id(str(tolerance["id"]))
        if is_first_process():
            stack.enter_context(running(run_id, tolerance["logdir"]))
        path = last_checkpoint(run_id, tolerance["logdir"]) or path
        if is_first_process():
            remember(run_id, tolerance["logdir"], Path.cwd())
    if path is None and train["mode"] != "fit":
        raise UserError(f"train.mode={train['mode']} needs the weights of a run: give train.ckpt=PATH")
    if path is not None and train["mode"] == "fit":
        log.info("going on from %s", path)
    return path


def _quieten() -> None:
    """Lightning's advice that does not apply here."""
    for module in ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(module).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*sync_dist=True.*",  # sums are reduced by the module itself
        ".*LeafSpec.*",
        ".*You requested to overfit.*",  # evaluation is in order anyway
        ".*exists and is not empty.*",
        ".*WeightAveraging callback, but loading a checkpoint outside.*",
        ".*Experiment logs directory.*",
        ".*in eval mode at the start of training.*",  # meant: frozen statistics
    ):
        warnings.filterwarnings("ignore", text)


if __name__ == "__main__":
    sys.exit(main())
