"""python -m src.dataloaders: prepare, verify, preview, and what it says when it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from src.dataloaders.__main__ import main

SMALL = ["dataset.n_samples=40", "dataset.workers=1"]
LISTOPS = ["dataset.n_train=30", "dataset.n_val=5", "dataset.n_test=5"]


def test_prepare_and_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["prepare", "pathfinder", *SMALL]) == 0
    line = "pathfinder: 32 train, 4 val, 4 test; 1 number(s) a step, at most 1,024 steps, 2 outputs"
    assert line in capsys.readouterr().out
    assert main(["verify", "pathfinder", *SMALL]) == 0
    assert "verified" in capsys.readouterr().out
    (folder,) = (tmp_path / "cache").glob("pathfinder32-*/")
    (folder / "rows-00000.npy").write_bytes(b"damaged")
    assert main(["verify", "pathfinder", *SMALL]) == 2
    assert "delete that folder and prepare it again" in capsys.readouterr().err


def test_previews(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from PIL import Image

    picture = tmp_path / "sheet.png"
    assert main(["preview", "pathfinder", *SMALL, "-n", "6", "-o", str(picture), "-s", "train"]) == 0
    assert f"{picture}: train samples" in capsys.readouterr().out
    with Image.open(picture) as sheet:
        assert sheet.size[0] > 100
        assert len(set(sheet.getdata())) > 10
    assert main(["preview", "listops", *LISTOPS, "-n", "2", "-s", "test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("class ")
    assert "[M" in lines[1]


def test_verify_reads_every_sample_of_token_data(capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "listops", *LISTOPS]) == 0
    assert "18 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["prepare", "pathfindr"], "did you mean 'pathfinder'?"),
        (["prepare", "listops", "dataset.n_trian=3"], "n_trian"),
        (["prepare", "sc"], "speech_commands_v0.02.tar.gz (2.3 GB)"),
        (["prepare", "aan"], "lra_release.gz (7.7 GB"),
        (["preview", "listops", "-n", "0"], "-n must be at least 1"),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error


def test_help_names_the_three_actions():
    shown = subprocess.run(
        [sys.executable, "-m", "src.dataloaders", "--help"], capture_output=True, text=True, check=True, timeout=600
    ).stdout
    assert all(word in shown for word in ("prepare", "verify", "preview", "key=value"))


@pytest.mark.parametrize("change", ["stale checksum", "no checksum"])
@pytest.mark.parametrize("what", ["test_value", "test_flat"])
def test_verify_notices_changed_labels_and_tokens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str, change: str
):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    assert main(["prepare", "listops", *LISTOPS]) == 0
    (path,) = (tmp_path / "cache").glob("listops-*.safetensors")
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    tensors[what][0] ^= 1
    save_file(tensors, path, header if change == "stale checksum" else None)
    assert main(["verify", "listops", *LISTOPS]) == 2
    assert str(path) in capsys.readouterr().err
    if change == "no checksum":
        path.unlink()
    assert main(["verify", "listops", *LISTOPS]) == 0


def test_verify_compares_listops_with_its_generator(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from safetensors import safe_open
    from safetensors.torch import load_file

    from sdn.checksum import save_tensors

    assert main(["prepare", "listops", *LISTOPS]) == 0
    (path,) = (tmp_path / "cache").glob("listops-*.safetensors")
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    tensors["train_value"][3] = (tensors["train_value"][3] + 1) % 10
    save_tensors(path, tensors, header)
    assert main(["verify", "listops", *LISTOPS]) == 2
    assert f"train_value in {path} is not what its source gives" in capsys.readouterr().err
