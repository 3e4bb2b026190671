"""The launcher in a minimal tree with the import structure of state-spaces/s4 (no file of theirs)."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdn.errors import UserError
from src.config import compose
from src.into_s4 import OURS, PIPELINES, SAME, s4_experiment

TREE = {
    # S4's src, src/models and models have no __init__.py; src/utils and src/dataloaders have one.
    "src/utils/__init__.py": "from .config import instantiate\n",
    "src/utils/config.py": (
        "import hydra\n"
        "def instantiate(registry, config):\n"
        "    arguments = {k: v for k, v in config.items() if k != '_name_'}\n"
        "    return hydra.utils.get_method(registry[config['_name_']])(**arguments)\n"
    ),
    "src/utils/registry.py": "model = {'s4': 'nowhere.S4'}\n",
    "src/dataloaders/__init__.py": "WHOSE = 'theirs'\n",
    "src/models/theirs.py": "",
    "models/theirs.py": "",
    "configs/config.yaml": (
        "defaults:\n  - _self_\n  - experiment: base\n"
        "train:\n  seed: 0\n  ema: 0.0\n  monitor: x\n  mode: max\nwandb:\n  project: hippo\n"
    ),
    "configs/experiment/base.yaml": "# @package _global_\ndefaults:\n  - /pipeline: cifar\n",
    "configs/pipeline/cifar.yaml": (
        "# @package _global_\ndefaults:\n  - /trainer: default\n  - /loader: torch\n  - /dataset: cifar\n"
        "  - /optimizer: adamw\n  - /scheduler: plateau\nencoder: linear\ndecoder:\n  mode: pool\n"
    ),
    "configs/trainer/default.yaml": "max_epochs: 1\n",
    "configs/loader/torch.yaml": "batch_size: 1\n",
    "configs/dataset/cifar.yaml": "grayscale: false\n",
    "configs/optimizer/adamw.yaml": "lr: 0.1\nweight_decay: 0.0\n",
    "configs/scheduler/plateau.yaml": "# @package _global_\nscheduler:\n  mode: max\n",
    "configs/scheduler/cosine_warmup.yaml": (
        "# @package _global_\nscheduler:\n  num_warmup_steps: 1\n  num_training_steps: 2\n"
    ),
    "train.py": (
        "import hydra, torch\n"
        "import src.dataloaders, src.utils as utils\n"
        "from src.utils import registry\n"
        "@hydra.main(config_path='configs', config_name='config.yaml', version_base='1.1')\n"
        "def main(config):\n"
        "    model = utils.instantiate(registry.model, config.model)\n"
        "    y, state = model(torch.randn(2, 16, model.d_model), lengths=None, l_output=0, state=None)\n"
        "    print(src.dataloaders.WHOSE, tuple(y.shape), sum(p.numel() for p in model.parameters()),\n"
        "          config.scheduler.num_training_steps, config.scheduler.num_warmup_steps,\n"
        "          config.dataset.grayscale, config.loader.batch_size, config.wandb)\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    ),
}


def _tree(folder: Path) -> Path:
    for name, text in TREE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _launch(folder, *arguments):
    command = [sys.executable, str(OURS / "src" / "into_s4.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_cifar_runs_in_their_loop_and_their_tree_stays_as_it_is(tmp_path):
    tree = _tree(tmp_path)
    run = _launch(tree, "experiment=spikingssm/cifar", "model.n_layers=1", "model.d_model=32", "hydra.run.dir=out")
    assert run.returncode == 0, run.stderr
    assert "theirs (2, 16, 32)" in run.stdout
    assert "180000 18000 True 50 None" in run.stdout
    kept = {str(p.relative_to(tree)): p.read_text() for p in tree.rglob("*") if p.suffix in (".py", ".yaml")}
    assert {name: text for name, text in kept.items() if not name.startswith("out")} == TREE


def test_mistakes_are_one_sentence(tmp_path):
    run = _launch(tmp_path, "experiment=spikingssm/cifar")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "no checkout" in run.stderr
    run = _launch(_tree(tmp_path), "experiment=lra/s4-cifar")
    assert run.returncode == 2
    assert "name one experiment" in run.stderr


def test_wandb_is_off_unless_it_is_named(tmp_path):
    small = ("model.n_layers=1", "model.d_model=32", "hydra.run.dir=out")
    run = _launch(_tree(tmp_path), "experiment=spikingssm/cifar", "wandb.project=mine", "faithful=true", *small)
    assert run.returncode == 0, run.stderr
    assert "True 50 {'project': 'mine'}" in run.stdout


RELEASED = {"aan": 50_000, "mnist": 90_000, "pmnist": 90_000, "sc": 200_000, "wt103": 800_000}
STEPS = {"aan": 45_960, "cifar": 180_000, "imdb": 44_992, "listops": 120_000, "mnist": 108_000, "pathfinder": 500_000}
STEPS |= {"pathx": 500_000, "pmnist": 108_000, "sc": 212_080, "wt103": 800_608}
"""Optimizer steps with S4's loaders, worked out apart."""


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("name", PIPELINES)
def test_what_arrives_there_are_our_own_values(name, faithful):
    if faithful and name == "imdb":
        with pytest.raises(UserError, match="no validation split"):
            s4_experiment(name, faithful)
        return
    ours = compose(f"experiment=spikingssm/{name}", f"faithful={str(faithful).lower()}")
    theirs = s4_experiment(name, faithful)
    assert theirs["model"] == ours["model"]
    moved = {"dataset.l_max": "loader.l_max", "dataset.seed": "dataset.roll_seed"} if name == "wt103" else {}
    compared = 0
    for key, place in SAME.items():
        section, _, option = key.partition(".")
        if option in (ours[section] or {}):
            where, _, what = moved.get(key, place).partition(".")
            assert theirs[where][what] == ours[section][option], key
            compared += 1
    assert compared >= 12
    warmup = ours["scheduler"]["warmup"]
    steps = RELEASED.get(name, STEPS[name]) if faithful else STEPS[name]
    assert theirs["scheduler"]["num_training_steps"] == steps
    assert theirs["scheduler"]["num_warmup_steps"] == (warmup if warmup >= 1 else warmup * steps)
    assert theirs["wandb"] is None


def test_wt103_arrives_whole():
    theirs = s4_experiment("wt103")
    assert (theirs["loader"]["l_max"], theirs["loader"]["batch_size"]) == (8192, 1)
    assert (theirs["task"]["div_val"], theirs["task"]["dropemb"], theirs["task"]["dropsoft"]) == (4, 0.25, 0.25)
    assert (theirs["trainer"]["devices"], theirs["trainer"]["precision"]) == (8, "16-mixed")


def test_splits_of_so_many_samples_become_shares():
    assert s4_experiment("cifar")["dataset"]["val_split"] == 0.1
    assert s4_experiment("mnist")["dataset"]["val_split"] == 0.1
    assert s4_experiment("minst") == s4_experiment("mnist")


def test_what_s4_has_no_data_for_is_refused():
    with pytest.raises(UserError, match="pipeline"):
        s4_experiment("dvs128gesture")
