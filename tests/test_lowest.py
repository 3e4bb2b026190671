"""``tools/lowest.py``: what is installed, and what becomes of a minimum that cannot be had."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tool(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "tools/lowest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.venv, "create", lambda *_, **__: None)
    return module


def test_lines_of_a_requirements_file(tool):
    lines = ["# head", "-r other.txt", "numpy>=1.26", "hydra-core>=1.3.2,<1.4", "ruff==0.17.6 # pinned"]
    lines += ["triton>=3.9; sys_platform == 'linux'"]
    assert tool.lowest("\n".join(lines)) == [
        "numpy==1.26",
        "hydra-core==1.3.2",
        "ruff==0.17.6",
        "triton==3.9; sys_platform == 'linux'",
    ]


def test_a_minimum_that_is_gone_is_said_and_what_is_above_it_taken(tool, monkeypatch, tmp_path, capsys):
    asked, missing = [], ["numpy", "pandas"]

    def run(command, **options):
        if "pytest" in command:
            return SimpleNamespace(returncode=3)
        asked.append(Path(command[-1]).read_text().split("\n"))
        if not missing:
            return SimpleNamespace(returncode=0)
        name = missing.pop()
        line = next(line for line in asked[-1] if line.startswith(f"{name}=="))
        error = f"ERROR: Could not find a version\nERROR: No matching distribution found for {line}\n"
        return SimpleNamespace(returncode=1, stderr=error)

    monkeypatch.setattr(tool.subprocess, "run", run)
    assert tool.main([str(tmp_path / "venv"), "tests/sdn"]) == 3
    assert [line for line in asked[-1] if re.match("numpy|pandas|scipy", line)] == [
        "numpy>=1.26",
        "pandas>=2.1",
        "scipy==1.11",
    ]
    said = capsys.readouterr().out
    assert "pandas==2.1 cannot be had; taking what is above it" in said


def test_another_failure_of_pip_ends_it(tool, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        tool.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="no space left\n")
    )
    assert tool.main([str(tmp_path / "venv")]) == 1
    assert capsys.readouterr().err == "no space left\n"
