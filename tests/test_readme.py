"""Every command and snippet of the README runs, at small sizes but as typed; a line nobody runs is an error."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def _commands():
    lines = "\n".join(_blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


COMMANDS = _commands()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A digits network of two training steps, in the place where the README expects the demo's."""
    folder = tmp_path_factory.mktemp("readme")
    overrides = ["experiment=spikingssm/digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
    overrides += ["model.d_model=8", "logger.tensorboard=false", "hydra.run.dir=outputs/demo/digits-sdn"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "train", *overrides]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return folder


def _kind(words):
    if words[0] in ("make", "jupyter", "pip"):
        return words[0]
    if words[0] == "python3" or words[0].startswith(".venv/"):
        return "setup"
    if words[:3] == ["python", "-m", "train"]:
        return "train"
    if words[:2] == ["python", "-m"]:
        return words[2]
    return words[1]


def _with(kind):
    return [words for words in COMMANDS if _kind(words) == kind]


def test_every_kind_of_command_is_known():
    known = {"make", "jupyter", "pip", "setup", "train", "generate.py", "train.py", "examples/stream_onnx.py"}
    known |= {"src.evaluate", "src.demo_stream", "src.export", "src.dataloaders", "benchmarks", "src.write"}
    assert {_kind(words) for words in COMMANDS} <= known
    for kind in ("make", "train", "generate.py", "train.py", "src.evaluate", "src.export"):
        assert _with(kind), f"the README no longer shows {kind}"


def test_make_targets_and_files_exist():
    makefile = (ROOT / "Makefile").read_text()
    for _, target, *_ in _with("make"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for words in _with("jupyter"):
        assert (ROOT / words[-1]).is_file()
    for words in _with("setup"):
        for word in words:
            assert not word.endswith(".txt") or (ROOT / word).is_file(), word
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), f"dead link {link}"


def test_simulate_and_fit_as_typed(tmp_path, monkeypatch):
    import generate
    import train

    monkeypatch.chdir(tmp_path)
    for words in _with("generate.py"):
        assert generate.main([*words[2:], "-N", "40", "-T", "64"]) == 0
    files = {path.name.split("-")[0]: str(path) for path in (tmp_path / "dataset").glob("*.pt")}
    for words in _with("train.py"):
        if "..." in words and "--save" in words:
            continue
        arguments = words[2:]
        for role in ("training", "test"):
            at = arguments.index(f"--{role}") + 1
            full = f"{role}-mem-T1024-N(0.0,1.0)-50000-tau_0.2.pt"
            assert arguments[at] in ("...", f"dataset/{full}")
            arguments[at] = files[role]
        extra = ["--epochs", "1", "--d_model", "2"] if "--save" in arguments else []
        assert train.main([*arguments, *extra]) == 0
    assert (tmp_path / "exp1" / "sdn.safetensors").is_file()


@pytest.mark.parametrize("words", _with("train"), ids=" ".join)
def test_training_lines_compose(words):
    from src.config import compose

    # -m is Hydra's sweep; of each list its first value
    overrides = [word for word in words[3:] if word != "-m"]
    overrides = [re.sub(r"=([^,]+),.*", r"=\1", word) for word in overrides]
    assert compose(*overrides)["model"]["_name_"] == "spikingssm"


def test_data_command_knows_what_the_readme_names():
    from src.registry import REGISTRY

    for words in _with("src.dataloaders"):
        assert words[3] in ("prepare", "verify", "preview")
        assert words[4] in REGISTRY["dataset"]


def test_evaluate_stream_and_export_as_typed(checkpoint, monkeypatch, capsys):
    from src import demo_stream, evaluate, export

    monkeypatch.chdir(checkpoint)
    for words in _with("src.evaluate"):
        assert evaluate.main([*words[3:], "--limit", "10"]) == 0
    for words in _with("src.demo_stream"):
        assert demo_stream.main([*words[3:], "--every", "32", "--fps", "1"]) == 0
    for words in _with("src.export"):
        if words[-1].endswith(".onnx"):
            pytest.importorskip("onnxscript")
        assert export.main(words[3:]) == 0
    assert (checkpoint / "outputs" / "demo" / "digits-sdn" / "evaluation" / "evaluation.html").is_file()
    pytest.importorskip("onnxruntime")
    for words in _with("examples/stream_onnx.py"):
        monkeypatch.setattr(sys, "argv", [str(ROOT / words[1]), *words[2:]])
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    assert "after row 8" in capsys.readouterr().out


def test_python_snippets(checkpoint, monkeypatch):
    from src import export

    monkeypatch.chdir(checkpoint)
    best = "outputs/demo/digits-sdn/checkpoints/best.ckpt"
    assert export.main([best, "digits.safetensors"]) == 0
    names = {"digit": torch.rand(64), "x": torch.randn(32, 16, 1).numpy()}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.slow
def test_the_demo_from_end_to_end(tmp_path):
    command = [sys.executable, "-m", "src.demo", "--quick", "--out", str(tmp_path / "demo")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "demo" / "report.html").read_text()
    for words in ("Neurons are simulated", "An SDN is fitted", "A SpikingSSM learns", "side by side"):
        assert words in page
