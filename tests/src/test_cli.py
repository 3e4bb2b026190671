"""The command line: a mistake is one sentence and exit code 2; a killed run goes on to the same figures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.config import compose

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "model.d_model=8",
    "model.n_layers=1",
    "model.layer.d_state=4",
    "model.layer.neuron=sltt",
    "logger.tensorboard=false",
    "callbacks.learning_rate_monitor=null",
)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("optimizer.lrr=1", r"unknown key optimizer.lrr; did you mean 'optimizer.lr'\?"),
        ("+optimizer.lrr=1", r"unknown key optimizer.lrr; did you mean 'lr'\?"),
        ("+modle.d_model=3", r"unknown key modle; did you mean 'model'\?"),
        ("+train.sed=3", r"unknown key train.sed; did you mean 'seed'\?"),
        ("+dataset.permutate=true", r"unknown key dataset.permutate"),
        ("+loader.workers=2", r"unknown key loader.workers"),
        ("+trainer.epochs=3", r"unknown key trainer.epochs; did you mean 'm.._epochs'\?"),
        ("+callbacks.timr={}", r"unknown callback 'timr'; did you mean 'timer'\?"),
        ("+model.layer.d_stat=4", r"unknown layer option d_stat"),
        ("model.layer.d_stat=4", r"unknown key model.layer.d_stat; did you mean 'model.layer.d_state'\?"),
        ("model.layer.neuron=lif", r"unknown neuron 'lif'; choose one of"),
        ("model.layer.tau=1.5", r"tau"),
        ("model.norm=bach", r"unknown norm 'bach'"),
        ("model.d_model=wide", r"model.d_model must be a number, not 'wide'"),
        ("train.test=maybe", r"train.test must be true or false, not 'maybe'"),
        ("train.mode=fitt", r"train.mode must be one of fit, validate, test"),
        ("experiment=mnist", r"there is no experiment 'mnist'; did you mean 'spikingssm/mnist'\?"),
        ("experiment=spikingssm/cifra", r"did you mean 'spikingssm/cifar'\?"),
        ("scheduler=cosin_warmup", r"there is no scheduler 'cosin_warmup'; did you mean 'cosine_warmup'\?"),
        ("dataset.path=my.npz", r"dataset.path is no key of what was chosen; it is one of dataset=arrays or audio"),
        ("dataset._name_=digit", r"unknown dataset 'digit'; did you mean 'digits'\?"),
        ("loader.batch_size=9999", r"do not fill one batch of 9999"),
        ("trainer.precision=12", r"trainer: "),
        ("a b c", r"cannot read the command line"),
    ],
)
def test_a_mistake_is_one_sentence(typed, word: str, sentence: str):
    import re

    code, err = typed("logger.tensorboard=false", word)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2
    assert len(lines) == 1, err
    assert re.search(sentence, lines[0]), lines[0]
    assert lines[0].startswith("error: ")


def test_missing_data_says_where_from_and_where_to(typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code, err = typed("experiment=spikingssm/mnist", "logger.tensorboard=false")
    assert code == 2
    assert err.count("\n") == 1, err
    for part in ("mnist not found in", str(tmp_path / "data/mnist"), "ylecun/mnist", "17 MB", "DATA_PATH"):
        assert part in err


def test_defaults_aliases_and_the_faithful_switch():
    assert compose()["dataset"]["_name_"] == "digits"
    assert compose("experiment=spikingssm/minst") == compose("experiment=spikingssm/mnist")
    assert compose("experiment=spikingssm/pminst") == compose("experiment=spikingssm/pmnist")
    faithful = compose("+faithful=true", "experiment=spikingssm/cifar")
    assert (faithful["model"]["postnorm"], faithful["loader"]["eval_drop_last"]) == ("legacy", True)
    fixed = compose("experiment=spikingssm/cifar")
    assert (fixed["model"]["postnorm"], fixed["loader"]["eval_drop_last"]) == ("fixed", False)


def test_prints_the_whole_config(typed):
    assert typed("--cfg", "job", "model.layer.tau=0.2") == (0, "")


def test_sweep_with_paths_relative_to_where_it_is_typed(typed, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    shutil.copy(ROOT / "sdn/pretrained/tau_0.2.safetensors", tmp_path / "mine/sdn.safetensors")
    sdn = ("model.layer.neuron=sdn", "model.layer.tau=0.2", "model.layer.sdn=mine/sdn.safetensors")
    quick = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "hydra.sweep.dir=sweep")
    code, err = typed("-m", *SMALL, *sdn, *quick, "optimizer.lr=0.01,0.02")
    assert code == 0, err
    runs = [json.loads((tmp_path / f"sweep/{job}/results.json").read_text()) for job in (0, 1)]
    assert runs[0]["train/loss"] != runs[1]["train/loss"]


def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "train", *SMALL, *words]


@pytest.mark.slow
def test_a_sweep_of_jobs_side_by_side(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    quick = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "hydra.sweep.dir=sweep", "optimizer.lr=0.01,0.02")
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10")
    words = [sys.executable, "-m", "train", "-m", *SMALL, *launcher, *quick]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = environment(tmp_path) | {"PYTHONPATH": path}
    done = subprocess.run(words, cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *rows = (tmp_path / "sweep/results.csv").read_text().splitlines()
    assert "optimizer.lr" in header
    assert [row.split(",")[1] for row in rows] == ["0.01", "0.02"]
    assert "results.csv" in done.stdout


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path: Path):
    """SIGKILL without warning; the resumed run ends with the figures of one that was never stopped.

    The quick tests have the like in tests/faults/test_kills.py.
    """
    options = ("trainer.max_epochs=3", "loader.batch_size=20")

    def start(*words: str) -> subprocess.Popen:
        return subprocess.Popen(command(*options, *words), cwd=tmp_path, env=environment(tmp_path))

    last = tmp_path / "killed/checkpoints/last.ckpt"
    killed, whole = start("hydra.run.dir=killed"), start("hydra.run.dir=whole")
    while not last.exists() and killed.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL  # it was not done
    assert start(f"train.ckpt={last}", "hydra.run.dir=resumed").wait() == 0
    assert whole.wait() == 0
    figures = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("whole", "resumed")]
    for name in ("train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy", "steps"):
        assert figures[0][name] == figures[1][name], name
