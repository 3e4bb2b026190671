from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdn.fitting.laws import make_law
from sdn.fitting.simulate import Recipe, write


@pytest.fixture
def data_file(tmp_path) -> Callable[..., Path]:
    """``data_file(name, number, timestep, tau, law, seed)`` simulates a small data set and returns its path."""

    def make(name="training", number=60, timestep=32, tau=0.2, law="white", seed=0):
        recipe = Recipe(name, number, timestep, make_law(law), tau, seed)
        path = tmp_path / "dataset" / recipe.file_name
        if not path.exists():
            write(recipe, path, threads=1)
        return path

    return make
