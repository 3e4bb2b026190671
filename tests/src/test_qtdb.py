"""QTDB on small files of the published layout: protocol, refusals, and a run with its export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.qtdb import QTDB


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """20 training and 6 test records: events, one-hot waves with steps that have none, -1 at the last step."""
    from scipy.io import savemat

    folder = tmp_path / "data" / "qtdb"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 6)):
        x = generator.choice([-1, 0, 1], (n, 1301, 4), p=[0.0, 0.9, 0.1]).astype(np.int16)
        x[:, -1] = -1
        y = np.eye(7, dtype=np.uint8)[generator.integers(0, 7, (n, 1301))][..., 1:]
        savemat(folder / f"QTDB_{split}.mat", {"x": x, "y": y})
    return folder


def _open(**options: object) -> QTDB:
    data = QTDB(**{"val_size": 4} | options)
    data.setup()
    return data


def test_splits_steps_and_unlabelled_steps(files: Path):
    from scipy.io import loadmat

    data = _open()
    assert [len(part) for part in (data.train, data.val, data.test)] == [16, 4, 6]
    x, y = data.test.__getitems__(range(6))
    raw = loadmat(files / "QTDB_test.mat")
    assert torch.equal(x, torch.from_numpy(raw["x"][:, :-1]).float())
    assert torch.equal(y, torch.from_numpy(raw["y"][:, :-1].argmax(-1)))
    none = torch.from_numpy(raw["y"][:, :-1].sum(-1) == 0)
    ignored = _open(unlabelled="ignore").test.y
    assert none.any()
    assert torch.equal(ignored, torch.where(none, -1, y))
    assert not torch.equal(_open(seed=1).val.x, data.val.x)
    assert torch.equal(_open().val.x, data.val.x)


def test_other_files_are_refused_in_a_sentence(files: Path):
    from scipy.io import savemat

    with pytest.raises(UserError, match="SHA-256"):
        _open().verify()
    path = files / "QTDB_train.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="get it again"):
        _open()
    savemat(path, {"x": np.zeros((3, 9, 4)), "y": np.zeros((3, 9, 6))})
    with pytest.raises(UserError, match="1301"):
        _open()
    savemat(path, {"x": np.full((3, 1301, 4), 2), "y": np.zeros((3, 1301, 6))})
    with pytest.raises(UserError, match="other values"):
        _open()
    path.unlink()
    with pytest.raises(UserError, match="brf-neurons"):
        _open()


def test_trains_reports_accuracy_over_steps_and_leaves_as_one_file(files: Path, run_in, tmp_path: Path):
    from models.spike.network import load, save
    from src.export import network_of
    from src.module import SequenceModule

    results = run_in(
        "run", "experiment=spikingssm/qtdb", "dataset.val_size=4", "model.d_model=4", "model.n_layers=1",
        "model.layer.d_state=4", "loader.batch_size=8", "loader.eval_batch_size=4", "trainer.max_epochs=1",
    )  # fmt: skip
    assert results["monitor"] == "val/loss"
    steps = 6 * 1300
    assert results["test/accuracy"] * steps == pytest.approx(round(results["test/accuracy"] * steps), abs=1e-2)
    module = SequenceModule.from_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    data = _open()
    x, y = data.test.__getitems__(range(6))
    save(network_of(module), tmp_path / "net.safetensors")
    network = load(tmp_path / "net.safetensors")
    with torch.no_grad():
        answers = network(x)
    assert answers.shape == (6, 1300, 6)
    assert (answers.argmax(-1) == y).float().mean().item() == pytest.approx(results["test/accuracy"], abs=1e-3)
