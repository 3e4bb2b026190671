"""A stranger's classes, in a package beside the data, with an unchanged checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.base import SequenceData, TensorSet
from src.dataloaders.check import check_family

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = '''
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from src.dataloaders.base import SequenceData, TensorSet
from src.tasks.classification import Classification

class Waves(SequenceData):
    """Sine waves of three frequencies."""
    _name_ = "waves"
    d_output = 3
    l_max = 30
    class_names = ["slow", "middle", "fast"]

    def __init__(self, n: int, noise: float = 0.1, seed: int = 1) -> None:
        super().__init__(seed=seed)
        self.n, self.noise = n, noise

    def setup(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        y = torch.arange(self.n) % 3
        t = torch.arange(30.0) + 30 * torch.rand(self.n, 1, generator=generator)
        x = torch.sin(t * (y[:, None] + 1) / 3) + self.noise * torch.randn(self.n, 30, generator=generator)
        self.train, self.val, self.test = (TensorSet(x[i::3, :, None], y[i::3]) for i in (0, 1, 2))

class Smooth(Classification):
    def __init__(self, data, d_model: int, bonus: float = 0.0) -> None:
        super().__init__(data, d_model)

class Encoder(nn.Linear):
    def __init__(self, data, d_model: int) -> None:
        super().__init__(data.d_input, d_model)

class Decoder(nn.Module):
    def __init__(self, data, d_model: int) -> None:
        super().__init__()
        self.output = nn.Linear(d_model, data.d_output)
    def forward(self, h):
        return self.output(h[:, -1])

class Plain(torch.optim.SGD):
    pass

class Halve(torch.optim.lr_scheduler.LambdaLR):
    def __init__(self, optimizer, num_training_steps: int) -> None:
        super().__init__(optimizer, lambda step: 0.5 ** (4 * step / num_training_steps))

class Say(Callback):
    def __init__(self, word: str) -> None:
        self.word = word
    def on_fit_end(self, trainer, pl_module) -> None:
        print(self.word, type(trainer.optimizers[0]).__name__, type(pl_module.encoder).__name__)

def function(*args, **kwargs):
    open("called", "w").close()
'''
WHOLE = """
import sys, torch, mypkg.parts
from src.module import SequenceModule
network, x = SequenceModule.from_checkpoint(sys.argv[1]), torch.randn(2, 30, 1)
with torch.no_grad():
    program = torch.export.export(network, (x,))
    print(torch.allclose(program.module()(x), network(x), atol=1e-5))
"""
# One process for several commands: importing torch and Lightning anew for each would take most of the time.
EACH = """
import contextlib, io, json, runpy, sys
found = []
for words in json.loads(sys.argv.pop()):
    sys.argv, err, code = [words[0], *words[1:]], io.StringIO(), 0
    with contextlib.redirect_stderr(err):
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
    found.append([code, err.getvalue()])
print(json.dumps(found))
"""
TINY = ["model.d_model=8", "model.n_layers=1", "model.layer.neuron=sltt", "trainer.max_epochs=1"]
TINY += ["trainer.accelerator=cpu", "logger.tensorboard=false", "hydra.run.dir=run"]


@pytest.fixture
def outside(tmp_path: Path):
    """``outside(*words) -> CompletedProcess`` of a command in a folder with the package ``mypkg``."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg/__init__.py").touch()
    (tmp_path / "mypkg/parts.py").write_text(PACKAGE)

    def run(*words: str, path: str = str(ROOT)) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_every_part_may_be_the_users_own(outside, tmp_path: Path):
    own = {"dataset": "Waves", "task": "Smooth", "encoder": "Encoder", "decoder": "Decoder"}
    own |= {"optimizer": "Plain", "scheduler": "Halve"}
    chosen = [f"{group}=own" for group in own if group != "dataset"]
    named = [f"{group}._name_=mypkg.parts.{name}" for group, name in own.items()]
    callback = "+callbacks.mine={_name_: mypkg.parts.Say, word: hello}"
    # the checkout's train.py by its path: the folder the command is typed in is found without PYTHONPATH
    command = [str(ROOT / "train.py"), "pipeline=own", *chosen, *named, callback, "+dataset.n=300", *TINY]
    done = outside(*command, path="")
    assert done.returncode == 0, done.stderr
    assert "hello Plain Encoder" in done.stdout
    checkpoint = "run/checkpoints/best.ckpt"

    refused = outside("-m", "src.evaluate", checkpoint, "--limit", "20")
    assert refused.returncode == 2
    assert "add --allow mypkg.parts" in refused.stderr
    files = ("own.safetensors", "own.onnx")
    commands = [["src.evaluate", checkpoint, "--limit", "20", "--allow", "mypkg"]]
    commands += [["src.export", checkpoint, file, "--allow", "mypkg"] for file in files]
    done = outside("-c", EACH, json.dumps(commands))
    (evaluated, _), *exported = json.loads(done.stdout.splitlines()[-1])
    assert evaluated == 0
    for file, (code, err) in zip(files, exported, strict=True):
        assert code == 2
        assert "the encoder mypkg.parts.Encoder is a class of yours, which a network file cannot describe" in err
        assert err.count("\n") == 1
        assert not (tmp_path / file).exists()
    done = outside("-c", WHOLE, checkpoint)
    assert done.stdout.strip() == "True", done.stderr


def test_a_data_set_of_the_users_trains_evaluates_exports_and_streams(outside, tmp_path: Path):
    done = outside("-m", "train", "dataset._name_=mypkg.parts.Waves", "+dataset.n=300", *TINY)
    assert done.returncode == 0, done.stderr
    export = ("-m", "src.export", "run/checkpoints/best.ckpt", "waves.safetensors", "--allow", "mypkg")
    assert outside(*export).returncode == 0
    stream = (
        "import torch, models.spike; net = models.spike.load('waves.safetensors'); state = net.initial_state()\n"
        "for x in torch.zeros(5, 1, 1): logits, state = net.step(x, state)\n"
        "print(logits.shape[-1])"
    )
    assert outside("-c", stream).stdout.strip() == "3"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dataset._name_=mypkg.parts.function"], "is not a subclass of src.dataloaders.base.SequenceData"),
        (["dataset._name_=mypkg.parts.Say"], "is not a subclass of src.dataloaders.base.SequenceData"),
        (["dataset._name_=os.system"], "standard library"),
        (["dataset._name_=mypkg.parts.Wave"], "did you mean 'Waves'?"),
        (["dataset._name_=mypkg.nowhere.Waves"], "no module mypkg.nowhere"),
        (["dataset._name_=mypkg.parts.Waves", "dataset.val_fraction=0.3"], "unknown key dataset.val_fraction"),
        (["dataset._name_=mypkg.parts.Waves", "+dataset.m=3"], "unknown key dataset.m"),
        (["dataset._name_=mypkg.parts.Waves", "dataset.n=3"], "+dataset.n="),
        (["dataset._name_=mypkg.parts.Waves"], "missing a required argument: 'n'"),
        (["pipeline=own"], "dataset._name_=package.module.Class"),
        (["decoder._name_=mypkg.parts.Halve"], "is not a subclass of torch.nn"),
        (["+callbacks.mine={_name_: mypkg.parts.Waves}"], "is not a subclass of pytorch_lightning"),
        (["+callbacks.mine={_name_: mypkg.parts.Say, wrod: a}"], "unknown key callbacks.mine.wrod"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_called(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg/parts.py").write_text(PACKAGE)
    code, err = typed(*words, "logger.tensorboard=false")
    assert code == 2
    assert err.count("\n") == 1, err
    assert sentence in err
    assert not list(tmp_path.rglob("called"))


class Mine(SequenceData):
    """Right as it stands; each case below breaks one thing."""

    d_input, d_output = 2, 3

    def __init__(self, **broken: object) -> None:
        super().__init__()
        self.train = self.val = self.test = TensorSet(torch.zeros(6, 5, 2), torch.arange(6) % 3)
        for name, value in broken.items():
            setattr(self, name, value)

    def setup(self) -> None: ...


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"d_output": None}, "must set d_output"),
        ({"d_input": 3}, r"must have x \(B, L, 3\) of floats, not \(2, 5, 2\)"),
        ({"val": None}, "must make val"),
        ({"test": []}, "test of .* is empty"),
        ({"n_tokens": 7}, r"must have x \(B, L\) of token ids"),
        ({"val": TensorSet(torch.zeros(6, 5), torch.zeros(6))}, r"not \(2, 5\) of torch.float32"),
        ({"val": TensorSet(torch.full((6, 5, 2), torch.nan), torch.zeros(6))}, "NaN or infinity"),
        ({"val": TensorSet(torch.zeros(6, 5, 2), torch.full((6,), 3))}, "a class of .* is 3, but d_output is 3"),
        ({"collate": lambda batch: batch}, r"must return \(x, y, z\)"),
        ({"collate": lambda batch: (*batch, {"lengths": torch.tensor([5, 6])})}, r"lengths of .* are \[5, 6\]"),
    ],
)
def test_a_class_that_breaks_its_word_is_told(broken: dict, sentence: str):
    check_family(Mine())
    with pytest.raises(UserError, match=sentence):
        check_family(Mine(**broken))
