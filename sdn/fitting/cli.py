"""The command line of the SDN fit; ``train.py --training ...`` ends here."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import NeuronData
    from .fit import FitConfig

EPILOG = "DIR then holds exp.log, metrics.csv, checkpoints, sdn.safetensors, report.json, curves.png, prediction.png."

# Steps of refinement unless the command says otherwise, and the sequences they need.
REFINE, LEAST = 600, 20


def parser() -> argparse.ArgumentParser:
    """The options; what is left out stays out of the namespace, so that a resumed run can tell."""
    p = argparse.ArgumentParser(
        prog="train.py",
        description="Fit a surrogate dynamic network (SDN) to simulated neurons.",
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    p.add_argument("--training", metavar="FILE", required=True, help="training data, from generate.py")
    p.add_argument("--test", metavar="FILE", required=True, help="test data, from generate.py -n test")
    p.add_argument("-s", "--save", metavar="DIR", default=None, help="folder of a new run")
    p.add_argument("-r", "--resume", metavar="DIR", default=None, help="folder of a run to go on with")
    p.add_argument("--lr", type=float, help="learning rate at the start (0.01)")
    p.add_argument("--weight_decay", type=float, help="of AdamW (0.01)")
    p.add_argument("--epochs", type=int, help="passes over the data; the cosine ends with the last (100)")
    p.add_argument("--batch_size", type=int, help="sequences a step (64)")
    p.add_argument("--num_workers", type=int, help="accepted and without effect: the data are in memory")
    p.add_argument("--n_layers", type=int, help="layers of the network (1)")
    p.add_argument("--d_model", type=int, help="its channels (8)")
    p.add_argument("--k", "--kernel_size", dest="kernel_size", type=int, help="past inputs a layer sees (8)")
    p.add_argument(
        "--refine",
        type=int,
        metavar="N",
        help=f"second-order steps on the reduced network at the end ({REFINE}; 0 where they are not written for the "
        f"network or the data: more than one layer, under {LEAST} sequences)",
    )
    p.add_argument("--seed", type=int, help="of weights, validation split and data order (0)")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (cpu)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Check the arguments, then fit.

    Raises:
        UserError: anything the user can mend.
    """
    argv = sys.argv[1:] if argv is None else argv
    # Help is help, even where --training lacks its file.
    given = vars(parser().parse_args(["--help"] if {"-h", "--help"} & set(argv) else argv))
    from ..device import check_device
    from ..errors import UserError
    from ..lock import owned
    from .data import load
    from .fit import FitConfig
    from .run import BEST, LAST, REDUCED, REPORT, finished, resume_state

    save, resume = given.pop("save"), given.pop("resume")
    if resume and save and Path(save).resolve() != Path(resume).resolve():
        raise UserError("--save names a new run and --resume an old one; give one of them")
    if not (resume or save):
        raise UserError("name the folder of the run with --save DIR, or go on with an earlier one with --resume DIR")
    directory = Path(resume or save)
    device = check_device(given.pop("device"))
    workers = given.pop("num_workers", None)
    training = load(given.pop("training"))
    test = load(given.pop("test"), tau=training.tau)
    if not resume:
        FitConfig(**given).check()
    elif not directory.is_dir():
        raise UserError(f"{directory} holds no run that can be resumed; start one with --save {directory}")
    with owned(directory):
        if resume:
            config, state = resume_state(directory, given, training, test)
            if finished(directory):
                print(f"{directory} is finished after {config.epochs} epochs; its report is in {directory / 'exp.log'}")
                return 0
        else:
            given.setdefault("refine", REFINE if len(training) >= LEAST and given.get("n_layers", 1) == 1 else 0)
            config, state = FitConfig(**given), None
            if there := [name for name in (LAST, BEST, REDUCED, REPORT) if (directory / name).exists()]:
                raise UserError(
                    f"{directory} holds a run already ({there[0]}); go on with --resume {directory}, or name another "
                    "folder"
                )
        return _run(config, training, test, directory, device, state, workers)


def _run(
    config: FitConfig,
    training: NeuronData,
    test: NeuronData,
    directory: Path,
    device: str,
    state: dict[str, Any] | None,
    workers: int | None,
) -> int:
    from loguru import logger

    from ..disk import refused
    from ..errors import UserError
    from .run import LAST, run

    logger.remove()
    console = logger.add(sys.stderr, format="<green>{time:HH:mm:ss}</green> {message}")
    try:
        # catch: what the file system refuses must reach the door as one sentence, not the console as a traceback
        log = logger.add(directory / "exp.log", format="{time:YYYY-MM-DD HH:mm:ss} {message}", catch=False)
        if workers:
            logger.info("--num_workers {} has no effect: the data are tensors in memory", workers)
        run(config, training, test, directory, device, state)
    except UserError as error:
        logger.remove(console)  # the door says it there
        with contextlib.suppress(OSError):
            logger.error("{}", error)
        raise
    except OSError as error:
        if (reason := refused(error, directory / "exp.log")) is None:
            raise
        raise UserError(reason) from error
    except KeyboardInterrupt as stop:
        on = f"; go on with --resume {directory}" if (directory / LAST).is_file() else ""
        raise KeyboardInterrupt(f"stopped by the user{on}") from stop
    finally:
        with contextlib.suppress(OSError, ValueError, UnboundLocalError):
            logger.remove(log)
    return 0
