"""Doors make OpenMP's threads sleep while they wait, before torch is loaded, unless the user said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_DOOR = """
import os, sys
from sdn.errors import door
@door
def main():
    import torch
    print(os.environ.get("GOMP_SPINCOUNT"))
{before}
main()
"""


@pytest.mark.parametrize(
    ("before", "environment", "expected"),
    [
        ("", {}, "0"),
        ("", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("", {"OMP_WAIT_POLICY": "active"}, "None"),
        ("import torch", {}, "None"),  # too late: it would only mislead
    ],
)
def test_set_where_unset(before: str, environment: dict[str, str], expected: str):
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = _DOOR.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "train",
        "generate",
        "src.evaluate",
        "src.export",
        "src.write",
        "src.demo",
        "src.demo_stream",
        "src.dataloaders.__main__",
        "src.train",
        "benchmarks.__main__",
        "sdn.refine",
        "sdn.card",
        "sdn.window",
        "sdn.fitting.cli",
    ],
)
def test_doors_import_torch_inside(module: str):
    """At their head they load no torch, or waiting could not be set in time."""
    code = f"import sys, importlib; importlib.import_module({module!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{module} imports torch at its head {done.stderr}"
