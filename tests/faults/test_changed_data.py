"""Data that changed behind a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdn.checksum import load_tensors, save_tensors
from sdn.errors import UserError
from src.checkpoint import load_checkpoint
from src.checkpoint_io import AtomicCheckpointIO
from src.dataloaders.__main__ import main

SMALL = (
    "model.d_model=8",
    "model.n_layers=1",
    "model.layer.d_state=4",
    "model.layer.neuron=sltt",
    "loader.batch_size=8",
    "trainer.accelerator=cpu",
    "logger.tensorboard=false",
    "logger.csv=false",
)
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_folders(environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("src.dataloaders.cache._opened", {})
    monkeypatch.chdir(tmp_path)


def go(folder: Path, *words: object) -> dict:
    from src.config import compose
    from src.train import run

    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    return run(compose(*SMALL, *map(str, words)))


def arrays(folder: Path, label: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    x = np.random.default_rng(1).standard_normal((40, 12, 2)).astype(np.float32)
    y = np.arange(40) % 2
    y[3] ^= label
    np.savez(folder / "my.npz", x=x, y=y)
    return folder / "my.npz"


def book(folder: Path, token: str = "r") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "book.txt").write_text("".join(f"line {i} of the sto{token if i == 5 else 'r'}y\n" for i in range(60)))
    return folder / "book.txt"


KINDS: dict[str, tuple[Callable[..., Path], str, object]] = {
    "arrays": (arrays, "label", 1),
    "corpus": (book, "token", "s"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_with_its_own_data_only(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write, name, other = KINDS[kind]
    path = write(tmp_path / "here")
    words = [f"pipeline={kind}", "model.d_model=8", "model.n_layers=1", "loader.batch_size=2", "train.test=false"]
    words += ["dataset.l_max=32"] if kind == "corpus" else []

    def on(run: str, path: Path, epochs: int, *more: str) -> dict:
        last = tmp_path / "first/checkpoints/last.ckpt"
        given = [
            f"dataset.path={path}",
            f"train.ckpt={last}",
            f"trainer.max_epochs={epochs}",
            "trainer.limit_train_batches=2",
        ]
        return go(tmp_path / run, *words, *given, *more)

    go(tmp_path / "first", *words, f"dataset.path={path}", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    checkpoint = tmp_path / "first/checkpoints/last.ckpt"
    assert load_checkpoint(checkpoint)["contents"]

    os.utime(path)
    assert on("touched", path, 2)["epochs"] == 2
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / path.name
    assert on("moved", moved, 2)["epochs"] == 2

    write(tmp_path / "there", **{name: other})
    with pytest.raises(UserError, match=f"{moved}, changed since {checkpoint}.*accept_changed_data=true"):
        on("changed", moved, 2)
    assert not (tmp_path / "changed/checkpoints").exists()
    caplog.clear()
    for mode in ("validate", "test"):
        judge = [*words, f"train.mode={mode}", f"train.ckpt={checkpoint}", f"dataset.path={moved}"]
        if kind == "corpus":  # the other text numbers its tokens otherwise, and every figure would be wrong
            with pytest.raises(UserError, match=f"{checkpoint} was trained where token 4 is"):
                go(tmp_path / mode, *judge)
        else:
            go(tmp_path / mode, *judge)
            assert f"{moved}, changed since {checkpoint}" in caplog.text
        caplog.clear()
    if kind == "corpus":
        with pytest.raises(UserError, match=f"{checkpoint} was trained where token 4 is"):
            on("accepted", moved, 2, "train.accept_changed_data=true")
        return
    assert on("accepted", moved, 2, "train.accept_changed_data=true")["epochs"] == 2
    assert "going on with it" in caplog.text
    kept = load_checkpoint(tmp_path / "accepted/checkpoints/last.ckpt")["contents"]
    assert kept != load_checkpoint(checkpoint)["contents"]  # from here on these are the run's data

    older = load_checkpoint(checkpoint)
    del older["contents"]
    AtomicCheckpointIO().save_checkpoint(older, checkpoint)
    shutil.move(tmp_path / "there", tmp_path / "here")
    assert on("older", path, 2)["epochs"] == 2  # nothing to compare with


def resealed(path: Path, name: str) -> None:
    """One value of a cache changed, and its checksum made right."""
    tensors, header = load_tensors(path)
    tensors = {key: value.clone() for key, value in tensors.items()}
    flat = tensors[name].view(-1)
    flat[0] = (
        1 - flat[0] if name in ("y", "train_y", "test_label") else flat[-1] if flat[-1] != flat[0] else flat[0] + 1
    )
    del header["checksum"]
    save_tensors(path, tensors, header)


def pictures(folder: Path) -> None:
    import io

    datasets = pytest.importorskip("datasets")
    from PIL import Image

    folder.mkdir(parents=True)
    for split in ("train", "test"):
        encoded = []
        for _ in range(20):
            buffer = io.BytesIO()
            Image.fromarray(RNG.integers(0, 256, (28, 28), dtype=np.uint8)).save(buffer, "PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        rows = {"image": encoded, "label": [i % 10 for i in range(20)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def reviews(folder: Path) -> None:
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            (folder / name / f"{i}.txt").write_text(f"{name} film {i}")


def citations(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "eval", "test"):
        rows = [f"{i % 2}.0\tP{i}\tQ{i}\tfirst text {i}\tsecond {i}" for i in range(6)]
        (folder / f"new_aan_pairs.{split}.tsv").write_text("\n".join(rows) + "\n")


def words(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("a b <unk> a c\nb a\n")


CACHES = {
    "arrays": (lambda data: arrays(data / "x"), ["dataset.path={data}/x/my.npz"], "y", "arrays-[0-9a-f]*"),
    "text": (lambda data: reviews(data / "x"), ["dataset.path={data}/x"], "flat", "text-*"),
    "corpus": (lambda data: book(data / "x"), ["dataset.path={data}/x/book.txt"], "val", "corpus-*"),
    "mnist": (lambda data: pictures(data / "mnist"), ["dataset.val_size=5"], "train_y", "mnist-*"),
    "aan": (lambda data: citations(data / "aan"), [], "flat", "aan-*"),
    "wt2": (lambda data: words(data / "wt2"), [], "train", "wikitext-2-*"),
}


@pytest.mark.parametrize("name", CACHES)
def test_verify_compares_a_cache_with_its_source(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    write, keys, tensor, file = CACHES[name]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    keys = [key.format(data=tmp_path / "data") for key in keys]
    assert main(["prepare", name, *keys]) == 0
    (path,) = (tmp_path / "cache").glob(f"{file}.safetensors")
    resealed(path, tensor)
    capsys.readouterr()
    assert main(["verify", name, *keys]) == 2
    assert f"{tensor} in {path} is not what its source gives" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["columns.npz", "rows-00000.npy"])
def test_packed_data_that_changed_are_told_when_they_are_opened(file: str, tmp_path: Path, capsys):
    small = ["dataset.n_samples=40", "dataset.workers=1"]
    assert main(["prepare", "pathfinder", *small]) == 0
    (folder,) = (tmp_path / "cache").glob("pathfinder32-*/")
    before = (folder / file).stat().st_mtime_ns
    content = bytearray((folder / file).read_bytes())
    os.utime(folder / file, ns=(before + 10**9, before + 10**9))
    assert main(["prepare", "pathfinder", *small]) == 0  # touched, and what it was
    content[-30 if file == "columns.npz" else -1] ^= 1
    (folder / file).write_bytes(content)
    capsys.readouterr()
    assert main(["prepare", "pathfinder", *small]) == 2
    assert "delete that folder and prepare it again" in capsys.readouterr().err


def test_data_without_a_cache_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The digits of scikit-learn, in memory."""
    import sklearn.datasets

    small = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "train.test=false")
    go(tmp_path / "first", *small)
    load = sklearn.datasets.load_digits

    def another(**options: object):
        x, y = load(**options)
        y[5] = (y[5] + 1) % 10
        return x, y

    monkeypatch.setattr(sklearn.datasets, "load_digits", another)
    with pytest.raises(UserError, match=r"of digits.* changed since"):
        go(tmp_path / "on", *small, "trainer.max_epochs=2", f"train.ckpt={tmp_path}/first/checkpoints/last.ckpt")


def test_checksums_say_nothing_of_where_and_when(tmp_path: Path):
    from src.dataloaders.arrays import Arrays
    from src.dataloaders.contents import watched

    found = []
    for folder in ("a", "b"):
        with watched() as seen:
            Arrays(str(arrays(tmp_path / folder))).prepare()
        found.append(seen["arrays"])
    assert found[0]["file"] != found[1]["file"]
    assert found[0]["checksum"] == found[1]["checksum"]
    with watched() as seen:
        Arrays(str(arrays(tmp_path / "a", label=1))).prepare()
    assert seen["arrays"]["checksum"] != found[0]["checksum"]
