import torch

from sdn.fitting import plots
from sdn.fitting.data import load


def test_pictures_are_drawn(data_file, tmp_path):
    row = {"epoch": 1, "train_loss": 0.1, "val_loss": 0.2, "val_wrong_over_true": 0.0}
    plots.curves([row, row | {"epoch": 2}], {"no memory": {"wrong_over_true": 0.1}}, tmp_path / "curves.png")
    plots.prediction(torch.zeros_like, load(data_file(number=2)), tmp_path / "prediction.png")
    pictures = sorted(tmp_path.glob("*.png"))
    assert [path.name for path in pictures] == ["curves.png", "prediction.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
