"""Every experiment: composes, has the parameters its header states, trains and evaluates on small data."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from src.config import CONFIGS, compose
from src.module import SequenceModule
from src.optim import make_optimizer

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment/spikingssm").glob("*.yaml"))
ALIASES = ("minst", "pminst")

# parameters in all; of the backbone: lr and decay of the run | no decay | the SSM's lr, no decay | the SSM's lr
SIZES = {
    "mnist": (752_810, (692_800, 3_200, 52_000, 0)),
    "pmnist": (665_610, (591_872, 4_096, 66_560, 0)),
    "cifar": (3_763_210, (3_545_088, 12_288, 199_680, 0)),
    "pathfinder": (1_093_122, (986_112, 6_144, 99_840, 0)),
    "pathx": (1_191_426, (789_504, 6_144, 198_144, 196_608)),
    "sc": (255_907, (198_144, 3_072, 25_344, 24_576)),
}
OUTPUTS = {"pathfinder": 2, "pathx": 2, "sc": 35}
GROUPS = ("main", "weight_decay=0", "lr=0.001,weight_decay=0", "lr=0.001")


def test_the_papers_eleven_and_the_released_names_are_there():
    lra = {"aan", "cifar", "imdb", "listops", "pathfinder", "pathx"}
    assert {*lra, "dvs128gesture", "mnist", "pmnist", "sc", "wt103", *ALIASES, "digits"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_composes_and_says_how_it_is_called(name: str):
    config = compose(f"experiment=spikingssm/{name}")
    assert max(config["trainer"]["max_epochs"], config["trainer"]["max_steps"]) > 0, "a run has an end"
    if name not in ALIASES:
        text = (CONFIGS / f"experiment/spikingssm/{name}.yaml").read_text()
        assert f"python -m train experiment=spikingssm/{name}" in text
        assert "Published:" in text
        stated = re.search(r"Parameters ([\d,]+)", text)
        assert name not in SIZES or stated[1].replace(",", "") == str(SIZES[name][0])


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_their_groups(name: str):
    total, groups = SIZES[name]
    config = compose(f"experiment=spikingssm/{name}", "model.layer.neuron=sltt")
    data = SimpleNamespace(d_input=1, d_output=OUTPUTS.get(name, 10), n_tokens=None, l_max=None)
    with torch.device("meta"):
        module = SequenceModule(config, data)
    assert sum(p.numel() for p in module.parameters()) == total
    around = total - sum(p.numel() for p in module.backbone.parameters())
    optimizer = make_optimizer(config["optimizer"], module, module.backbone)
    found = {g["name"]: sum(p.numel() for p in g["params"]) for g in optimizer.param_groups}
    assert [found.get(group, 0) for group in GROUPS] == [groups[0] + around, *groups[1:]]
    assert set(found) <= set(GROUPS)


@pytest.mark.parametrize(
    ("name", "folder", "column", "side"),
    [("mnist", "mnist", "image", 28), ("pmnist", "mnist", "image", 28), ("cifar", "cifar10", "img", 32)],
)
def test_trains_and_evaluates_on_images(
    run_in: Callable[..., dict], image_set: Callable, name: str, folder: str, column: str, side: int
):
    image_set(folder, column, side)
    results = run_in(
        "run",
        f"experiment=spikingssm/{name}",
        "model.d_model=8",
        "model.n_layers=1",
        "model.layer.d_state=4",
        "model.layer.neuron=sltt",
        "dataset.val_size=10",
        "loader.batch_size=8",
        "trainer.max_epochs=1",
        "scheduler.warmup=0",
    )
    assert results["steps"] == 2  # of 20 images in batches of 8
    assert results["test/accuracy"] * 10 == pytest.approx(round(results["test/accuracy"] * 10))  # of all 10
    assert 0 <= results["test/firing_rate"] <= 1
