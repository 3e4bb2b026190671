"""Files cut short or with a flipped bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import models.spike
from sdn.errors import UserError
from sdn.fitting.checkpoint import load_checkpoint as load_fit
from sdn.fitting.checkpoint import save_checkpoint as save_fit
from sdn.weights import load_reduced, save_reduced
from src.checkpoint import load_checkpoint
from src.checkpoint_io import AtomicCheckpointIO

FLIPS = 60


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def a_checkpoint(path: Path) -> Callable[[], object]:
    content = {"state_dict": {"w": torch.randn(500)}, "config": {"model": {}}, "shapes": {}}
    AtomicCheckpointIO().save_checkpoint(content, path)
    return lambda: load_checkpoint(path)


def a_fit(path: Path) -> Callable[[], object]:
    save_fit(path, {"model": {"w": torch.randn(500)}, "epoch": 3})
    return lambda: load_fit(path)


def a_reduced(path: Path) -> Callable[[], object]:
    save_reduced(load_reduced(0.125), path)

    def load() -> object:
        sdn = load_reduced(path)
        return {**sdn.state_dict(), "tau": sdn.tau}

    return load


def a_network(path: Path) -> Callable[[], object]:
    spec = {"model": {"d_model": 8, "n_layers": 1, "layer": {"d_state": 4}}}
    spec |= {"encoder": {"kind": "linear", "d_input": 1}, "decoder": {"kind": "sequence", "d_output": 3}}
    models.spike.save(models.spike.Network(spec), path)

    def load() -> object:
        network = models.spike.load(path)
        return {**network.state_dict(), "spec": network.spec}

    return load


FILES = {"checkpoint.ckpt": a_checkpoint, "fit.pth": a_fit, "sdn.safetensors": a_reduced, "net.safetensors": a_network}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["flipped", "cut"])
def test_what_is_not_what_was_written_is_refused_or_the_same(tmp_path: Path, name: str, fault: str):
    """A flipped bit in what no reader uses (padding, dates) changes nothing; every other one must be told."""
    path = tmp_path / name
    load = FILES[name](path)
    whole, before = path.read_bytes(), load()
    generator, refused = np.random.default_rng(0), 0
    for _ in range(FLIPS):
        place = int(generator.integers(len(whole)))
        content = bytearray(whole)
        content[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(content if fault == "flipped" else whole[:place])
        try:
            after = load()
        except UserError:
            refused += 1
        else:
            assert same(before, after), place
    assert refused > FLIPS / 4
