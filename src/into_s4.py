"""Launch our experiments in a checkout of state-spaces/s4, with its data sets, tasks and trainer.

Typed in the S4 checkout, of which nothing is changed::

    python PATH/TO/THIS/REPOSITORY/src/into_s4.py experiment=spikingssm/cifar [S4's own options]

Both trees go on Python's path (``src`` and ``models`` are namespace packages in both, so they merge, S4's files first),
the model gets a line in S4's registry, and the experiment is written in S4's terms to a temporary folder for Hydra's
``--config-dir``. Then S4's own ``train.py`` runs.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

OURS = Path(__file__).resolve().parent.parent
EXPERIMENT = "experiment=spikingssm/"

# What S4's data pipelines need to hear, and the optimizer steps of an epoch with S4's loaders.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "aan": {"pipeline": "aan", "steps": 2298, "dataset": {"l_max": 4000}, "decoder": {"mode": "pool"}},
    "cifar": {"pipeline": "cifar", "steps": 900, "dataset": {"grayscale": True}},
    "imdb": {
        "pipeline": "imdb",
        "steps": 1406,
        "dataset": {"l_max": 4096, "level": "char", "val_split": 0.1},
        "decoder": {"mode": "pool"},
    },
    "listops": {"pipeline": "listops", "steps": 3000, "dataset": {"l_max": 2048}, "decoder": {"mode": "pool"}},
    "mnist": {"pipeline": "mnist", "steps": 1080, "dataset": {"permute": False}},
    "pathfinder": {"pipeline": "pathfinder", "steps": 2500, "dataset": {"resolution": 32}},
    "pathx": {"pipeline": "pathfinder", "steps": 10000, "dataset": {"resolution": 128}},
    "pmnist": {"pipeline": "mnist", "steps": 1080, "dataset": {"permute": True}},
    "sc": {"pipeline": "sc", "steps": 5302, "dataset": {"all_classes": True}},
    "wt103": {"pipeline": "wt103", "steps": 12601, "dataset": {}},
}
ALIASES = {"minst": "mnist", "pminst": "pmnist"}


def s4_experiment(name: str) -> dict[str, Any]:
    """Our experiment in S4's terms: the content of one of its ``configs/experiment`` files.

    Raises:
        UserError: S4 has no data pipeline for it.
    """
    from sdn.errors import UserError
    from src.config import compose

    name = ALIASES.get(name, name)
    if name not in EXPERIMENTS:
        raise UserError(f"S4 has no data pipeline for {name!r}; launch one of {', '.join(EXPERIMENTS)}")
    theirs, ours = EXPERIMENTS[name], compose(f"experiment=spikingssm/{name}")
    model = dict(ours["model"])
    if model["layer"].get("sdn"):
        model["layer"] = model["layer"] | {"sdn": str(Path(model["layer"]["sdn"]).resolve())}
    epochs, warmup = ours["trainer"]["max_epochs"], ours["scheduler"]["warmup"]
    steps = epochs * theirs["steps"]
    experiment = {
        "defaults": [{"/pipeline": theirs["pipeline"]}, {"override /scheduler": "cosine_warmup"}],
        "model": model,
        "dataset": theirs["dataset"],
        "loader": {"batch_size": ours["loader"]["batch_size"]},
        "optimizer": {key: ours["optimizer"][key] for key in ("lr", "weight_decay")},
        "trainer": {"max_epochs": epochs},
        "scheduler": {
            "num_training_steps": steps,
            "num_warmup_steps": round(warmup * steps) if warmup < 1 else int(warmup),
        },
        "train": {"seed": ours["train"]["seed"]},
    }
    if "decoder" in theirs:
        experiment["decoder"] = theirs["decoder"]
    return experiment


def launch(arguments: list[str], s4: Path) -> None:
    """Run S4's ``train.py`` in ``s4`` with our experiment.

    Raises:
        UserError: this is no S4 checkout, or no experiment of ours is named.
    """
    from sdn.errors import UserError

    if not (s4 / "train.py").is_file() or not (s4 / "src" / "utils" / "registry.py").is_file():
        raise UserError(f"{s4} is no checkout of state-spaces/s4; change into one and run this again")
    names = [a.removeprefix(EXPERIMENT) for a in arguments if a.startswith(EXPERIMENT)]
    if len(names) != 1:
        raise UserError(f"name one experiment of ours: {EXPERIMENT}NAME with NAME one of {', '.join(EXPERIMENTS)}")
    import yaml

    experiment = _described(names[0])
    registry = importlib.import_module("src.utils.registry")
    registry.model["spikingssm"] = "models.spike.for_s4.SpikingSSMForS4"
    with tempfile.TemporaryDirectory(prefix="spikingssm-") as folder:
        file = Path(folder) / "experiment" / "spikingssm" / f"{names[0]}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("# @package _global_\n" + yaml.safe_dump(experiment, sort_keys=False), encoding="utf-8")
        sys.argv = [str(s4 / "train.py"), "--config-dir", folder, *arguments]
        runpy.run_path(str(s4 / "train.py"), run_name="__main__")


def _described(name: str) -> dict[str, Any]:
    """:func:`s4_experiment` from a process of its own, where ``src.dataloaders`` and the configs are ours."""
    from sdn.errors import UserError

    command = [sys.executable, "-m", "src.into_s4", "--describe", name]
    run = subprocess.run(command, cwd=OURS, env=os.environ | {"PYTHONPATH": str(OURS)}, capture_output=True, text=True)
    if run.returncode:
        raise UserError(run.stderr.strip().rpartition("\n")[2].removeprefix("error: "))
    return json.loads(run.stdout)


def main() -> int:
    """Put both trees on the path, then launch; the exit code."""
    if sys.argv[1:2] == ["--describe"]:
        from sdn.errors import door

        return door(lambda: print(json.dumps(s4_experiment(sys.argv[2]))))()
    s4 = Path.cwd()
    sys.path[:] = [str(s4), str(OURS), *(p for p in sys.path if Path(p or ".").resolve() != OURS / "src")]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(s4), str(OURS), os.environ.get("PYTHONPATH", "")])
    from sdn.errors import door

    return door(lambda: launch(sys.argv[1:], s4))()


if __name__ == "__main__":
    sys.exit(main())
