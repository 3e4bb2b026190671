"""What a checkpoint is judged and continued as, whose a folder is, and which checkpoint a run goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdn.errors import UserError
from sdn.lock import owned
from src.checkpoint import load_checkpoint
from src.module import SequenceModule
from src.restore import module_of

Run = Callable[..., dict]
ONE = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "train.test=false")
OTHER = ("model.layer.tau=0.9", "model.layer.reset=soft", "model.prenorm=false", "encoder.bias=false")


@pytest.fixture
def trained(run_in: Run, tmp_path: Path) -> Path:
    """A checkpoint of a network that differs from the defaults where its weights do not show it."""
    run_in("trained", *ONE, "train.test=true", *OTHER[:3])
    return tmp_path / "trained/checkpoints/best.ckpt"


def figures(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.mark.parametrize("mode", ["test", "validate"])
def test_a_checkpoint_is_judged_as_it_was_trained(
    run_in: Run, tmp_path: Path, trained: Path, mode: str, monkeypatch: pytest.MonkeyPatch
):
    import src.train
    from src.config import compose

    found = {}
    for name, words in (("bare", []), ("other", ["model.layer.tau=0.1"])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)  # nothing is repeated: not even the width of the model
        found[name] = src.train.run(compose(f"train.mode={mode}", f"train.ckpt={trained}", *words))
    key = "test/loss" if mode == "test" else "val/loss"
    expected = figures(trained.parents[1])
    assert found["bare"][key] == pytest.approx(expected[key], rel=1e-5)
    assert found["other"][key] != found["bare"][key]  # what the user names is on top


def test_what_is_named_and_does_not_fit_is_one_sentence(run_in: Run, trained: Path):
    for words, sentence in (
        (["model.d_model=12"], r"do not fit the network that the configuration describes: .* is \(.*8.*\) there"),
        (["model.n_layers=3"], "are of 1 layers, not of 3"),
        (["+faithful=true"], "trained with faithful=null"),
        (["experiment=spikingssm/mnist"], "trained on digits, the experiment is of mnist"),
        (["model.norm=layer"], "has no place|is missing"),
    ):
        with pytest.raises(UserError, match=sentence):
            run_in("judged", "train.mode=test", f"train.ckpt={trained}", *words)


def test_judging_with_another_neuron_by_name(run_in: Run, tmp_path: Path):
    run_in("sdn", *ONE, "model.layer.neuron=sdn")
    ckpt = tmp_path / "sdn/checkpoints/last.ckpt"
    assert run_in("exact", "train.mode=test", f"train.ckpt={ckpt}", "model.layer.neuron=sltt")["test/loss"] > 0
    run_in("sltt", *ONE)
    ckpt = tmp_path / "sltt/checkpoints/last.ckpt"
    assert run_in("surrogate", "train.mode=test", f"train.ckpt={ckpt}", "model.layer.neuron=sdn")["test/loss"] > 0


def test_going_on_as_another_run_is_refused_with_its_keys(run_in: Run, trained: Path):
    ckpt = trained.with_name("last.ckpt")
    with pytest.raises(UserError, match=r"model\.layer\.reset=soft, not hard; model\.layer\.tau=0\.9, not 0\.125"):
        run_in("on", f"train.ckpt={ckpt}", "model.prenorm=false")
    for word in ("optimizer.lr=0.5", "train.seed=7", "scheduler.warmup=0.5", "loader.batch_size=60", "train.ema=0.9"):
        with pytest.raises(UserError, match=word.split("=")[0]):
            run_in("on", f"train.ckpt={ckpt}", *OTHER[:3], word)
    free = ("loader.eval_batch_size=7", "trainer.max_epochs=2", "logger.csv=false", "callbacks.timer=null")
    assert run_in("on", f"train.ckpt={ckpt}", *OTHER[:3], *free)["epochs"] == 2


def test_the_sdn_of_a_checkpoint_needs_no_file(run_in: Run, tmp_path: Path):
    own = tmp_path / "mine.safetensors"
    shutil.copy(Path(__file__).parents[2] / "sdn/pretrained/tau_0.125.safetensors", own)
    words = ("model.layer.neuron=sdn", f"model.layer.sdn={own}")
    run_in("first", *ONE, *words)
    own.unlink()
    ckpt = tmp_path / "first/checkpoints/last.ckpt"
    SequenceModule.from_checkpoint(ckpt)
    assert run_in("test", "train.mode=test", f"train.ckpt={ckpt}")["test/loss"] > 0
    assert run_in("on", f"train.ckpt={ckpt}", *words, "trainer.max_epochs=2")["epochs"] == 2


def test_a_finished_run_is_not_overwritten_unasked(run_in: Run, tmp_path: Path):
    run_in("run", *ONE)
    best = tmp_path / "run/checkpoints/best.ckpt"
    before = best.read_bytes()
    for words in (ONE, ("train.mode=test", f"train.ckpt={best}")):
        with pytest.raises(UserError, match=r"holds a finished run; .*train\.overwrite=true"):
            run_in("run", *words)
    (tmp_path / "run/results.json").unlink()
    with pytest.raises(UserError, match=r"holds an interrupted run; .*go on with train\.ckpt=.*last\.ckpt"):
        run_in("run", *ONE)
    assert best.read_bytes() == before
    run_in("run", *ONE, "trainer.max_epochs=2", f"train.ckpt={tmp_path}/run/checkpoints/last.ckpt")
    run_in("run", *ONE, "train.overwrite=true", "train.seed=5")
    assert figures(tmp_path / "run")["seed"] == 5


def test_two_runs_in_one_folder_or_of_one_id(run_in: Run, tmp_path: Path):
    (tmp_path / "run").mkdir()
    with owned(tmp_path / "run"), pytest.raises(UserError, match="is in use by process"):
        run_in("run", *ONE)
    with owned(tmp_path / "ids/job"), pytest.raises(UserError, match=r"tolerance\.id=job: .*is in use by process"):
        run_in("run", *ONE, "tolerance.id=job", f"tolerance.logdir={tmp_path}/ids")
    run_in("run", *ONE)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_torn_checkpoint_is_passed_over(run_in: Run, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture):
    words = ("tolerance.id=job", f"tolerance.logdir={tmp_path}/ids")
    run_in("whole", "trainer.max_epochs=3")
    run_in("first", *words, "trainer.max_epochs=2", "scheduler.num_training_steps=36")
    last = tmp_path / "first/checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    for i in range(len(content) // 2, len(content) // 2 + 4096):
        content[i] ^= 16
    last.write_bytes({"cut": content[:4000], "flipped": content, "empty": b""}[damage])
    with pytest.raises(UserError, match=r"last\.ckpt is torn or foreign: .*previous\.ckpt is whole"):
        run_in("by-name", f"train.ckpt={last}")
    (tmp_path / "first/checkpoints/.last.ckpt.00000000.part").write_text("half")  # of a killed process
    caplog.set_level("INFO")
    run_in("second", *words, "trainer.max_epochs=3", "scheduler.num_training_steps=36")
    assert "is torn and passed over" in caplog.text
    assert f"going on from {tmp_path}/first/checkpoints/previous.ckpt" in caplog.text
    assert list((tmp_path / "first/checkpoints").glob(".*")) == []
    one, two = (load_checkpoint(tmp_path / f / "checkpoints/last.ckpt")["state_dict"] for f in ("whole", "second"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_more_than_the_best_is_kept_if_asked_for(run_in: Run, tmp_path: Path):
    run_in("run", "callbacks.best.save_top_k=2", "trainer.max_epochs=4")
    folder = tmp_path / "run/checkpoints"
    kept = sorted(path.name for path in folder.iterdir())
    assert len([name for name in kept if name.startswith("best-")]) == 2
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} < set(kept)
    assert any((folder / "best.ckpt").samefile(folder / name) for name in kept if name.startswith("best-"))
    everything = run_in("all", "callbacks.best.save_top_k=-1", "trainer.max_epochs=3")
    assert len(list((tmp_path / "all/checkpoints").glob("best-*.ckpt"))) == 3
    assert everything["best"] == max(
        float(value)
        for value in [
            load_checkpoint(p)["callbacks"]["best"]["current_score"]
            for p in (tmp_path / "all/checkpoints").glob("best-*.ckpt")
        ]
    )


def edited(path: Path, **changes: object) -> dict:
    content = load_checkpoint(path)
    content["config"] = json.loads(json.dumps(content["config"]))
    content["config"]["model"] |= changes
    return content


def test_a_file_that_asks_for_too_much_allocates_nothing(trained: Path, tmp_path: Path):
    for changes in (
        {"d_model": 10**9},
        {"n_layers": 10**9},
        {"layer": {"d_state": 10**9, "neuron": "sltt"}},
        {"layer": None},
        {"d_model": "8"},
        {"d_model": None},
        {"unknown": 3},
    ):
        with pytest.raises(UserError):
            module_of(edited(trained, **changes), trained)
    content = load_checkpoint(trained)
    for broken in ({"config": {}}, {"config": {"model": None}}, {"shapes": {}}, {"shapes": {"d_output": 10**12}}):
        with pytest.raises(UserError):
            module_of({**content, **broken}, trained)
    weights = dict(content["state_dict"])
    weights.popitem()
    with pytest.raises(UserError, match="is missing"):
        module_of({**content, "state_dict": weights}, trained)
