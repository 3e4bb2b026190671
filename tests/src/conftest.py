"""Helpers of the loop's tests: runs in their own folder, small images in the hub's layout."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

TINY = (
    "model.d_model=8",
    "model.n_layers=1",
    "model.layer.d_state=4",
    "model.layer.neuron=sltt",
    "loader.batch_size=100",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "logger.tensorboard=false",
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_PATH", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("src.dataloaders.cache._opened", {})  # what earlier tests have read


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Overrides that make a run of the digits small."""
    return TINY


@pytest.fixture
def run_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """``run_in(folder, *overrides)``: a tiny run in ``tmp_path/folder``; returns its results."""

    def run(folder: str, *overrides: str) -> dict:
        from src.config import compose
        from src.train import run

        (tmp_path / folder).mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / folder)
            return run(compose(*TINY, *overrides))

    return run


@pytest.fixture
def image_set(tmp_path: Path) -> Callable[..., Path]:
    """``image_set("mnist", "image", 28)``: random gray images as parquet under ``DATA_PATH/mnist``."""

    def write(name: str, column: str, side: int, train: int = 30, test: int = 10) -> Path:
        datasets = pytest.importorskip("datasets")
        from PIL import Image

        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for split, n in (("train", train), ("test", test)):
            images = []
            for _ in range(n):
                buffer = io.BytesIO()
                Image.fromarray(generator.integers(0, 256, (side, side), dtype=np.uint8)).save(buffer, "PNG")
                images.append({"bytes": buffer.getvalue(), "path": None})
            features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
            rows = {column: images, "label": list(generator.integers(0, 10, n))}
            datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
        return folder

    return write


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """``typed("a=1", ...) -> (exit code, stderr)`` of the training command, in this process."""

    from src.train import main

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
        return code, capfd.readouterr().err

    return run
