"""``pip install .`` brings the neurons and the architecture, and they work far from the checkout, alone."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEVELOPING = ("requirements-dev.txt", "requirements-benchmark.txt")

STATED = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "hydra": "hydra-core"}
"""Modules whose package has another name."""
BROUGHT = {"llvmlite": "numba", "markupsafe": "jinja2", "omegaconf": "hydra-core", "triton": "torch"}
"""Modules that are a part of what their package offers."""

STREAM = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hydra", "omegaconf", "pytorch_lightning", "lightning", "src", "datasets", "loguru"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import torch, models.spike, sdn
from sdn.neurons import make_neuron

assert CHECKOUT not in sdn.__file__, sdn.__file__
x = torch.randn(2, 4, 50)
for kind in ("sdn", "sltt", "bptt"):
    assert make_neuron(kind)(x).unique().tolist() == [0.0, 1.0]
network = models.spike.Network({
    "model": {"d_model": 8, "n_layers": 2, "layer": {"neuron": "sdn"}},
    "encoder": {"kind": "linear", "d_input": 1}, "decoder": {"kind": "sequence", "d_output": 3},
}).eval()
models.spike.save(network, "network.safetensors")
network, x = models.spike.load("network.safetensors"), torch.randn(1, 20, 1)
state = network.initial_state(1)
for t in range(20):
    logits, state = network.step(x[:, t], state)
assert logits.shape == (1, 3) and torch.isfinite(logits).all()
for name in SHIPPED:
    network = models.spike.load(name)
    logits, _ = network.step(torch.zeros(1, network.encoder.in_features), network.initial_state(1))
    assert torch.isfinite(logits).all()
print("streamed", sdn.__version__)
"""


def test_what_is_imported_is_stated():
    """Nothing is had by luck, because another package happens to want it."""
    files = [path for path in ROOT.glob("requirements*.txt") if path.name not in DEVELOPING]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    stated = {match[0].lower().replace("_", "-") for line in lines if (match := re.match(r"[A-Za-z][\w.-]*", line))}
    for path in (path for room in ("sdn", "models", "src") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.partition(".")[0] for name in names} - {"", "sdn", "models", "src"}:
                package = STATED.get(top) or BROUGHT.get(top) or top.lower().replace("_", "-")
                assert top in sys.stdlib_module_names or package in stated, f"{path} imports {top}"


def _stream(python: Path | str, folder: Path, environment: dict[str, str]) -> str:
    shipped = [path.stem for path in (ROOT / "models/spike/pretrained").glob("*.safetensors") if path.stem == "digits"]
    script = folder / "stream.py"
    script.write_text(f"CHECKOUT, SHIPPED = {str(ROOT)!r}, {shipped!r}\n{STREAM}", encoding="utf-8")
    done = subprocess.run([python, str(script)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _build(folder: Path, *options: str) -> Path:
    source = folder / "source"  # a copy: building leaves files beside the sources
    for part in ("sdn", "models"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE", *(path.name for path in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "-q", "-w", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("spikingssm-*.whl")
    return wheel


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path):
    """Installed beside this environment's packages it streams where the checkout is out of sight."""
    pytest.importorskip("setuptools")
    wheel = _build(tmp_path, "--no-build-isolation")
    with zipfile.ZipFile(wheel) as archive:  # a type checker reads the hints of packages that say they have some
        assert {"sdn/py.typed", "models/spike/py.typed"} <= set(archive.namelist())
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in target.iterdir() if path.suffix != ".dist-info"} <= {"sdn", "models", "bin"}
    work = tmp_path / "elsewhere"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    site = sysconfig.get_paths()["purelib"]
    assert "streamed" in _stream(sys.executable, work, environment | {"PYTHONPATH": f"{target}{os.pathsep}{site}"})


@pytest.mark.slow
def test_a_fresh_environment(tmp_path):
    """``pip install .`` in an empty environment, dependencies and all (minutes)."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    if "+cpu" in __import__("torch").__version__ or not __import__("torch").cuda.is_available():
        pin = f"torch=={__import__('torch').__version__.split('+')[0]}"  # the build that is here, not the newest
        subprocess.run([python, "-m", "pip", "install", "-q", pin], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", str(ROOT)], check=True)
    work = tmp_path / "elsewhere"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert "streamed" in _stream(python, work, environment)


def test_one_version_everywhere():
    from sdn import __version__

    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
