"""Every experiment composes to what it always was, and every yaml file names the arguments of the class it feeds."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.spike.ss4d import SS4D
from models.spike.ssm import NEURON_OPTIONS
from sdn.errors import UserError
from src.config import CONFIGS, compose, without_other_experiment
from src.registry import REGISTRY, lookup

STORED = json.loads((Path(__file__).parent / "compositions.json").read_text(encoding="utf-8"))
"""Flat configurations as composed before pipelines could set keys of the model: those common to all, and its own."""

ADDED: dict[str, Any] = {
    "dataset.permutation": None,
    "dataset.permutation_seed": 0,
    "loader.bucket": 0,
    "scheduler.rebound": False,
    "model.layer.learnable_u_r": False,
    "callbacks.best.save_top_k": 1,
    "callbacks.last.every_n_minutes": 10,
    "train.overwrite": False,
    "train.accept_changed_data": False,
    "train.peer_timeout": 10,
    "model.layer.surrogate": "triangle",
    "model.layer.width": None,
    "dataset.min_length": 500,
    "dataset.max_length": 2000,
}
"""Keys that came later; their value changes nothing."""

CHANGED: dict[str, dict[str, Any]] = {
    f"{name}{faithful}": {"dataset.law": "lra"} for name in ("pathfinder", "pathx") for faithful in ("", " faithful")
}
"""Experiment -> keys whose value was changed on purpose."""

RELEASED = {"aan": 50_000, "dvs128gesture": 180_000, "imdb": 50_000, "mnist": 90_000, "pmnist": 90_000, "sc": 200_000}
RELEASED |= {"wt103": 800_000}
"""Lengths of the released schedules, which faithful=true restores, where they are not those of the run."""

ALIASES = {"minst": "mnist", "pminst": "pmnist"}
GROUPS = ("dataset", "task", "encoder", "decoder")
FEEDS = [(group, path) for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        out |= flat(value, name) if isinstance(value, dict) and value else {name: value}
    return out


@pytest.mark.parametrize("name", STORED["own"])
def test_composes_to_the_stored_configuration(name: str):
    experiment, _, faithful = name.partition(" ")
    found = flat(compose(f"experiment=spikingssm/{experiment}", *(["faithful=true"] if faithful else [])))
    expected = {**STORED["common"], **STORED["own"][name], **CHANGED.get(name, {})}
    if faithful and expected["scheduler._name_"] == "cosine_warmup":
        expected |= {
            "scheduler.rebound": True,
            "scheduler.num_training_steps": RELEASED.get(ALIASES.get(experiment, experiment)),
        }
        expected |= {"trainer.max_epochs": 1000} if experiment == "wt103" else {}
    for key, value in ADDED.items():
        if key not in expected:
            assert found.pop(key, value) == value, key
    assert found == expected


def test_no_experiment_is_forgotten():
    files = {path.stem for path in (CONFIGS / "experiment/spikingssm").glob("*.yaml")}
    assert {name.partition(" ")[0] for name in STORED["own"]} <= files


EXPERIMENTS = sorted({name.partition(" ")[0] for name in STORED["own"]})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("scheduler", ["plateau", "multistep"])
def test_every_experiment_takes_another_scheduler(experiment: str, scheduler: str):
    """What the experiment says of its own schedule is left out, its other values stay."""
    found = flat(compose(f"experiment=spikingssm/{experiment}", f"scheduler={scheduler}"))
    shipped = yaml.safe_load((CONFIGS / f"scheduler/{scheduler}.yaml").read_text(encoding="utf-8"))
    expected = {**STORED["common"], **STORED["own"][experiment], **CHANGED.get(experiment, {})}
    assert {key: value for key, value in found.items() if key.startswith("scheduler.")} == flat(shipped, "scheduler")
    assert {key: found[key] for key in expected if not key.startswith("scheduler.")} == {
        key: value for key, value in expected.items() if not key.startswith("scheduler.")
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["scheduler=plateau", "scheduler.warmup=3"], "unknown key scheduler.warmup"),
        (["scheduler=plateau", "+scheduler.patienc=3"], r"unknown key scheduler.patienc; did you mean 'patience'\?"),
        (["scheduler=plateau", "+scheduler.gamma=0.1"], "unknown key scheduler.gamma"),
        (["+scheduler.gamma=0.1"], "unknown key scheduler.gamma"),
    ],
)
def test_a_schedulers_key_that_was_typed_is_refused(words: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        compose("experiment=spikingssm/mnist", *words)


@pytest.mark.parametrize("name", ["mnist", "wt2", "qtdb"])
def test_a_data_set_alone_is_its_pipeline(name: str):
    assert compose(f"dataset={name}") == compose(f"pipeline={name}")
    assert compose(f"dataset={name}", "experiment=spikingssm/digits")["model"]["layer"]["dt_max"] == 0.5


def test_the_default_data_set_keeps_its_experiment():
    assert compose("dataset=digits") == compose()
    assert without_other_experiment(["-m", "dataset=mnist,cifar"]) == ["-m", "pipeline=mnist,cifar", "experiment=none"]
    judging = ["train.mode=test", "train.ckpt=last.ckpt", "dataset=mnist"]
    assert without_other_experiment(judging) == judging


@pytest.mark.parametrize("name", ["audio", "text"])
@pytest.mark.parametrize("words", [["task=per_step", "decoder=per_step"], ["task=regression", "decoder=per_step"]])
def test_families_with_one_target_a_sequence_say_so(name: str, words: list[str]):
    with pytest.raises(UserError, match=f"dataset={name} has one label, or number, a .*pipeline=arrays"):
        compose(f"pipeline={name}", "dataset.path=folder", *words)


def parameters(target: Any, *leave_out: str) -> set[str]:
    return {name for name in inspect.signature(target).parameters if name not in leave_out}


def test_the_models_yaml_names_every_option_of_the_model():
    shipped = yaml.safe_load((CONFIGS / "model/spikingssm.yaml").read_text(encoding="utf-8"))
    assert set(shipped) - {"_name_"} == parameters(lookup("model", "spikingssm"))
    assert set(shipped["layer"]) == parameters(SS4D, "d_model", "dropout") | set(NEURON_OPTIONS)


@pytest.mark.parametrize(("group", "path"), FEEDS, ids=lambda part: getattr(part, "stem", part))
def test_a_yaml_names_every_option_of_its_class(group: str, path: Path):
    shipped = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "_name_" not in shipped:  # builds on another file
        shipped = flat(compose(f"{group}={path.stem}")[group])
    if (name := shipped.pop("_name_")) in REGISTRY[group]:
        assert set(shipped) == parameters(lookup(group, name), "data", "d_model")
