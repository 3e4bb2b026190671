"""Sets of the UCR / UEA archive: equal lengths, ragged, many channels, numbers; refusals; a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.ucr import UCR

pytest.importorskip("aeon.datasets")


def _open(name: str, **options: object) -> UCR:
    data = UCR(name, **options)
    data.prepare()
    data.setup()
    return data


def _labels(part: torch.utils.data.Dataset) -> torch.Tensor:
    return torch.tensor([int(y) for _, y in part])


@pytest.mark.parametrize(
    ("name", "shape", "n_train", "n_test", "classes"),
    [
        ("ItalyPowerDemand", (24, 1), 67, 1029, 2),
        ("BasicMotions", (100, 6), 40, 40, 4),
        ("ArrowHead", (251, 1), 36, 175, 3),
    ],
)
def test_official_splits_and_a_stratified_validation_part(name, shape, n_train, n_test, classes):
    data = _open(name)
    assert (len(data.train) + len(data.val), len(data.test)) == (n_train, n_test)
    assert data.train[0][0].shape == shape
    assert (data.d_input, data.d_output, len(data.class_names)) == (shape[1], classes, classes)
    everything = torch.cat([_labels(data.train), _labels(data.val)]).bincount()
    val = _labels(data.val).bincount(minlength=classes)
    assert ((val - 0.2 * everything).abs() <= 1).all()
    assert (_labels(data.train).bincount(minlength=classes) > 0).all()
    x = torch.stack([x for x, _ in data.train])
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(shape[1]), atol=1e-4, rtol=0)
    data.verify()


def test_ragged_series_are_padded_with_their_lengths():
    data = _open("JapaneseVowels")
    x, y, z = data.collate(data.test.__getitems__(list(range(30))))
    assert x.shape == (30, int(z["lengths"].max()), 12)
    assert z["lengths"].unique().numel() > 1
    assert y.dtype == torch.int64
    assert data.l_max == 29


def test_each_series_by_itself():
    data = _open("GunPoint", normalise="sample")
    x = torch.stack([x for x, _ in data.test])
    torch.testing.assert_close(x.mean(1), torch.zeros(150, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(150, 1), atol=1e-4, rtol=0)


def test_numbers_as_targets():
    data = _open("Covid3Month", targets="numbers")
    assert data.d_output == 1
    assert data.train[0][1].is_floating_point()
    with pytest.raises(UserError, match="task=regression"):
        _open("Covid3Month")
    with pytest.raises(UserError, match="task=classification"):
        _open("GunPoint", targets="numbers")


def test_what_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"Dataset=Wafer, or take one .*GunPoint"):
        _open("Wafer")
    with pytest.raises(UserError, match="name of a set"):
        UCR("../GunPoint")
    folder = tmp_path / "data" / "ucr" / "Wafer"
    folder.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        (folder / f"Wafer_{part}.ts").write_text("@problemName Wafer\n@classLabel true 1 2\n@data\n1,2,three:1\n")
    with pytest.raises(UserError, match=r"Wafer_TRAIN\.ts cannot be read"):
        _open("Wafer")
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(UserError, match=r"requirements-ucr\.txt"):
        _open("BasicMotions", seed=5)


@pytest.mark.parametrize("name", ["ItalyPowerDemand", "JapaneseVowels"])
def test_two_sets_train_and_leave_as_one_file(run_in, tmp_path: Path, name: str):
    from models.spike.network import load, save
    from src.export import network_of
    from src.module import SequenceModule

    results = run_in(
        "run", "experiment=spikingssm/ucr", f"dataset.name={name}", "model.d_model=8", "model.n_layers=1",
        "model.layer.d_state=4", "trainer.max_epochs=1", "loader.eval_batch_size=1000",
    )  # fmt: skip
    module = SequenceModule.from_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    save(network_of(module), tmp_path / "net.safetensors")
    data = _open(name, seed=1111)
    batch = data.collate(data.test.__getitems__(list(range(len(data.test)))))
    with torch.no_grad():
        answers = load(tmp_path / "net.safetensors")(batch[0], batch[2].get("lengths"))
    right = (answers.argmax(-1) == batch[1]).float().mean().item()
    assert right == pytest.approx(results["test/accuracy"], abs=2 / len(data.test))
