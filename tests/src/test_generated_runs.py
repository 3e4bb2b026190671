"""The experiments on generated, sound and event data: sizes, schedules, and a short run of the generated ones."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from src.config import compose
from src.module import SequenceModule
from src.optim import make_optimizer

# vocabulary, inputs, classes, parameters in all; then as in test_experiments
SIZES = {
    "listops": (18, 1, 10, 828_938, (789_504, 6_144, 13_824, 12_288)),
    "dvs128gesture": (None, 64, 11, 3_402_763, (3_151_872, 12_288, 101_376, 98_304)),
}
GROUPS = ("main", "weight_decay=0", "lr=0.001,weight_decay=0", "lr=0.001")
SCHEDULES = {
    "listops": (96_000, 120_000, 12_000),
    "pathfinder": (160_000, 500_000, 50_000),
    "pathx": (160_000, 500_000, 50_000),
    "sc": (84_843, 212_080, 1_000),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_groups(name: str):
    n_tokens, d_input, d_output, total, groups = SIZES[name]
    config = compose(f"experiment=spikingssm/{name}", "model.layer.neuron=sltt")
    data = SimpleNamespace(d_input=d_input, d_output=d_output, n_tokens=n_tokens, l_max=2048)
    with torch.device("meta"):
        module = SequenceModule(config, data)
    assert sum(p.numel() for p in module.parameters()) == total
    around = total - sum(p.numel() for p in module.backbone.parameters())
    optimizer = make_optimizer(config["optimizer"], module, module.backbone)
    found = {g["name"]: sum(p.numel() for p in g["params"]) for g in optimizer.param_groups}
    expected = dict(zip(GROUPS, (groups[0] + around, *groups[1:]), strict=True))
    assert found == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_from_epochs(name: str):
    samples, steps, warmup = SCHEDULES[name]
    config = compose(f"experiment=spikingssm/{name}")
    assert config["trainer"]["max_epochs"] * (samples // config["loader"]["batch_size"]) == steps
    asked = config["scheduler"]["warmup"]
    assert (asked * steps if asked < 1 else asked) == warmup


SMALL = {
    "listops": ("dataset.n_train=40", "dataset.n_val=9", "dataset.n_test=9"),
    "pathfinder": ("dataset.n_samples=60",),
    "pathx": ("dataset.n_samples=20",),
}


@pytest.mark.parametrize("name", SMALL)
def test_generated_experiments_run(run_in: Callable[..., dict], name: str):
    results = run_in(name, f"experiment=spikingssm/{name}", *SMALL[name], "loader.batch_size=8", "trainer.max_epochs=1")
    assert 0 <= results["test/accuracy"] <= 1
