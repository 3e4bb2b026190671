"""convert.ipynb runs from top to bottom, on a small fit of its own and on the folder of a run."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[3] / "convert.ipynb"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


def execute(folder):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert NOTEBOOK.stat().st_size < 40_000


def test_every_step_has_a_picture():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert text.count("plt.subplots") >= 8


def test_runs_top_to_bottom(monkeypatch, tmp_path):
    """Without a run it fits a small network, and exports what a neuron can load."""
    from sdn.weights import load_reduced

    monkeypatch.setenv("SDN_RUN", "")
    monkeypatch.setenv("SDN_EXPORT", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = execute(NOTEBOOK.parent)
    assert all(cell.execution_count for cell in cells)
    sdn = load_reduced(tmp_path / "sdn.safetensors", tau=0.125)
    assert sdn.n_weights() == 153
    assert (tmp_path / "sdn.pt2").stat().st_size > 0


def test_takes_the_newest_run_beside_it(monkeypatch, tmp_path):
    """After ``train.py --save exp1`` the notebook needs no variable, and its result stays in the run's folder."""
    from sdn.fitting.cli import main
    from sdn.fitting.laws import make_law
    from sdn.fitting.simulate import Recipe, write
    from sdn.weights import load_reduced

    for name in ("SDN_RUN", "SDN_EXPORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent))
    monkeypatch.chdir(tmp_path)
    write(Recipe("training", 128, 64, make_law("white"), tau=0.125), tmp_path / "training.pt")
    options = ["--epochs", "1", "--batch_size", "32", "--num_workers", "0", "--refine", "0"]
    assert not main(["--training", "training.pt", "--test", "training.pt", "--save", "exp1", *options])
    cells = execute(tmp_path)
    assert "exp1/best_checkpoint.pth" in str(cells[1].outputs)
    a, b = load_reduced("exp1/converted/sdn.safetensors"), load_reduced("exp1/sdn.safetensors")
    assert all((x == y).all() for x, y in zip(a.buffers(), b.buffers(), strict=True))
