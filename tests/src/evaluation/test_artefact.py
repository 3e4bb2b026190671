"""What an exported network knows of itself: its data, its run and its figures."""

from __future__ import annotations

import json

import pytest
import torch

from models.spike.network import load
from src import export


@pytest.fixture
def run(run_in, tmp_path):
    run_in("run", "trainer.max_epochs=2", "trainer.limit_train_batches=4")
    return tmp_path / "run"


def test_a_network_knows_what_its_user_needs(run, tmp_path):
    assert export.main([str(run / "checkpoints/best.ckpt"), str(tmp_path / "net.safetensors")]) == 0
    facts = load(tmp_path / "net.safetensors").facts
    record = json.loads((run / "record.json").read_text())
    assert facts["dataset"] == "digits"
    assert facts["class_names"] == list("0123456789")
    assert facts["input_scale"] == {"shift": [0.0], "scale": [1 / 16]}
    assert facts["tau"] == 0.125
    assert facts["versions"] == record["versions"]
    assert facts["commit"] == record["commit"]
    assert facts["figures"]["val/accuracy"] == record["best"]["val/accuracy"]
    assert facts["figures"]["test/accuracy"] == record["test"]["figures"]["test/accuracy"]
    assert facts["firing_rates"] == record["firing_rates"]
    assert "command" not in facts  # this run was not typed


def test_the_last_weights_do_not_carry_figures_of_the_best(run, tmp_path):
    record = json.loads((run / "record.json").read_text())
    export.main([str(run / "checkpoints/last.ckpt"), str(tmp_path / "net.safetensors")])
    figures = load(tmp_path / "net.safetensors").facts["figures"]
    assert figures["val/loss"] == record["epochs"][-1]["val/loss"]
    assert "test/accuracy" not in figures


def test_a_network_without_a_record_is_exported_all_the_same(run, tmp_path):
    (run / "record.json").unlink()
    export.main([str(run / "checkpoints/best.ckpt"), str(tmp_path / "net.safetensors")])
    facts = load(tmp_path / "net.safetensors").facts
    assert facts["class_names"] == list("0123456789")
    assert "figures" not in facts


def test_weights_that_are_nan_are_not_exported(run, tmp_path, capsys):
    path = run / "checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["decoder.output.bias"][0] = float("nan")
    torch.save(checkpoint, path)
    assert export.main([str(path), str(tmp_path / "net.safetensors")]) == 2
    assert "weights decoder.output.bias" in capsys.readouterr().err
    assert not (tmp_path / "net.safetensors").exists()


def test_onnx_carries_the_facts_as_metadata(run, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    assert export.main([str(run / "checkpoints/best.ckpt"), str(tmp_path / "net.onnx")]) == 0
    known = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "net.onnx")).metadata_props}
    assert known["dataset"] == "digits"
    assert json.loads(known["class_names"]) == list("0123456789")
    assert json.loads(known["tau"]) == 0.125
    assert json.loads(known["figures"])["step"] in (4, 8)
