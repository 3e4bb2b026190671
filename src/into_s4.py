"""Launch our experiments in a checkout of state-spaces/s4, with its data sets, tasks and trainer.

Typed in the S4 checkout, of which nothing is changed::

    python PATH/TO/THIS/REPOSITORY/src/into_s4.py experiment=spikingssm/cifar [faithful=true] [S4's own options]

Both trees go on Python's path (``src`` and ``models`` are namespace packages in both, so they merge, S4's files first),
the model gets a line in S4's registry, and the experiment is written in S4's terms to a temporary folder for Hydra's
``--config-dir``. Then S4's own ``train.py`` runs, without wandb unless an option names it.

What S4's loop does otherwise than ours stays its own: incomplete last batches are left out, in evaluation too, the test
is of the last weights, sound is normalised as released, perplexity is the mean over batches, batches are not sorted by
length.
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

# S4's pipeline of each experiment, and the samples of its training split, from which the steps of an epoch follow.
# Everything else is read from our own composed configuration.
PIPELINES: dict[str, tuple[str, int]] = {
    "aan": ("aan", 147_086),
    "cifar": ("cifar", 50_000),
    "imdb": ("imdb", 25_000),
    "listops": ("listops", 96_000),
    "mnist": ("mnist", 60_000),
    "pathfinder": ("pathfinder", 200_000),
    "pathx": ("pathfinder", 200_000),
    "pmnist": ("mnist", 60_000),
    "sc": ("sc", 84_843),
    "wt103": ("wt103", 103_227_021),  # words
}
ALIASES = {"minst": "mnist", "pminst": "pmnist"}

# Our key -> S4's, where both mean the same; keys that an experiment does not have are left out.
SAME: dict[str, str] = {
    "dataset.l_max": "dataset.l_max",
    "dataset.append_bos": "dataset.append_bos",
    "dataset.append_eos": "dataset.append_eos",
    "dataset.min_freq": "dataset.min_freq",
    "dataset.val_split": "dataset.val_split",
    "dataset.test_split": "dataset.test_split",
    "dataset.resolution": "dataset.resolution",
    "dataset.center": "dataset.center",
    "dataset.permute": "dataset.permute",
    "dataset.seed": "dataset.seed",
    "dataset.eval_rates": "loader.eval_resolutions",
    "decoder.mode": "decoder.mode",
    "decoder.use_lengths": "decoder.use_lengths",
    "decoder.nli": "decoder.nli",
    "decoder.d_hidden": "decoder.d_model",
    "task.cutoffs": "task.cutoffs",
    "task.div_val": "task.div_val",
    "task.dropemb": "task.dropemb",
    "task.dropsoft": "task.dropsoft",
    "task.init_scale": "task.init_scale",
    "task.bias_scale": "task.bias_scale",
    "loader.batch_size": "loader.batch_size",
    "optimizer.lr": "optimizer.lr",
    "optimizer.weight_decay": "optimizer.weight_decay",
    "trainer.max_epochs": "trainer.max_epochs",
    "trainer.accumulate_grad_batches": "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val": "trainer.gradient_clip_val",
    "train.seed": "train.seed",
    "train.ema": "train.ema",
    "train.monitor": "train.monitor",
    "train.monitor_mode": "train.mode",
}
# What our data sets are by nature and S4's must be told.
TOLD: dict[str, dict[str, Any]] = {
    "cifar": {"dataset.grayscale": True},
    "imdb": {"dataset.level": "char"},
    "sc": {"dataset.all_classes": True},
    "wt103": {"loader.n_context": 1, "loader.eval.batch_size": None, "loader.eval.l_max": None},
}


def s4_experiment(name: str, faithful: bool = False) -> dict[str, Any]:
    """Our experiment in S4's terms: the content of one of its ``configs/experiment`` files.

    Raises:
        UserError: S4 has no data pipeline for it, or its loop cannot run it as released.
    """
    from sdn.errors import UserError
    from src.config import compose

    name = ALIASES.get(name, name)
    if name not in PIPELINES:
        raise UserError(f"S4 has no data pipeline for {name!r}; launch one of {', '.join(PIPELINES)}")
    if faithful and name == "imdb":
        raise UserError(
            "as released, Text has no validation split, and S4's loop stops without one; run faithful=true with "
            "this repository's own python -m train, or leave it out here"
        )
    ours = compose(f"experiment=spikingssm/{name}", *(["faithful=true"] if faithful else []))
    pipeline, _ = PIPELINES[name]
    flat: dict[str, Any] = {theirs: value for key, theirs in SAME.items() if (value := _find(ours, key)) is not _NONE}
    flat |= TOLD.get(name, {})
    if "val_size" in ours["dataset"]:
        flat["dataset.val_split"] = ours["dataset"]["val_size"] / PIPELINES[name][1]
    if name == "wt103":  # windows and rotation of the text are the loader's there, devices and precision its trainer's
        flat["loader.l_max"] = flat.pop("dataset.l_max")
        flat["dataset.roll_seed"] = flat.pop("dataset.seed")
        flat |= {f"trainer.{key}": ours["trainer"][key] for key in ("devices", "precision")}
    steps = ours["scheduler"]["num_training_steps"] or ours["trainer"]["max_epochs"] * steps_of_an_epoch(name, ours)
    warmup = ours["scheduler"]["warmup"]
    flat["scheduler.num_training_steps"] = steps
    flat["scheduler.num_warmup_steps"] = round(warmup * steps) if warmup < 1 else int(warmup)
    model = dict(ours["model"])
    return {
        "defaults": [{"/pipeline": pipeline}, {"override /scheduler": "cosine_warmup"}],
        "model": model,
        **_nest(flat),
        "wandb": None,
    }


def steps_of_an_epoch(name: str, ours: dict[str, Any]) -> int:
    """Optimizer steps with S4's loaders, which leave out an incomplete last batch; of a text the last window counts."""
    samples, trainer = PIPELINES[name][1], ours["trainer"]
    together = ours["loader"]["batch_size"] * (trainer["devices"] if isinstance(trainer["devices"], int) else 1)
    if name == "wt103":
        batches = -(-(samples // together - 1) // ours["dataset"]["l_max"])
    else:
        data = ours["dataset"]
        held_out = data.get("val_size", round(samples * (data.get("val_split", 0) + data.get("test_split", 0))))
        batches = (data.get("n_train", samples) - held_out) // together
    return -(-batches // trainer["accumulate_grad_batches"])


_NONE = object()


def _find(config: dict[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return (config[section] or {}).get(name, _NONE)


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


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
        raise UserError(f"name one experiment of ours: {EXPERIMENT}NAME with NAME one of {', '.join(PIPELINES)}")
    import yaml

    asked = [a.partition("=")[2].lower() for a in arguments if a.lstrip("+").startswith("faithful=")]
    if any(value not in ("true", "false", "null") for value in asked):
        raise UserError(f"faithful is true or false, not {asked[-1]!r}")
    arguments = [a for a in arguments if not a.lstrip("+").startswith("faithful=")]
    experiment = _described(names[0], bool(asked) and asked[-1] == "true")
    if any(a.lstrip("+~").startswith("wandb") for a in arguments):
        del experiment["wandb"]
    registry = importlib.import_module("src.utils.registry")
    registry.model["spikingssm"] = "models.spike.for_s4.SpikingSSMForS4"
    with tempfile.TemporaryDirectory(prefix="spikingssm-") as folder:
        file = Path(folder) / "experiment" / "spikingssm" / f"{names[0]}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("# @package _global_\n" + yaml.safe_dump(experiment, sort_keys=False), encoding="utf-8")
        sys.argv = [str(s4 / "train.py"), "--config-dir", folder, *arguments]
        runpy.run_path(str(s4 / "train.py"), run_name="__main__")


def _described(name: str, faithful: bool) -> dict[str, Any]:
    """:func:`s4_experiment` from a process of its own, where ``src.dataloaders`` and the configs are ours."""
    from sdn.errors import UserError

    command = [sys.executable, "-m", "src.into_s4", "--describe", name, str(faithful)]
    run = subprocess.run(command, cwd=OURS, env=os.environ | {"PYTHONPATH": str(OURS)}, capture_output=True, text=True)
    if run.returncode:
        raise UserError(run.stderr.strip().rpartition("\n")[2].removeprefix("error: "))
    return json.loads(run.stdout)


def main() -> int:
    """Put both trees on the path, then launch; the exit code."""
    if sys.argv[1:2] == ["--describe"]:
        from sdn.errors import door

        return door(lambda: print(json.dumps(s4_experiment(sys.argv[2], sys.argv[3] == "True"))))()
    s4 = Path.cwd()
    sys.path[:] = [str(s4), str(OURS), *(p for p in sys.path if Path(p or ".").resolve() != OURS / "src")]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(s4), str(OURS), os.environ.get("PYTHONPATH", "")])
    from sdn.errors import door

    return door(lambda: launch(sys.argv[1:], s4))()


if __name__ == "__main__":
    sys.exit(main())
