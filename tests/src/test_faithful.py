"""A faithful run says whose SDN it uses."""

import pytest
import torch

from sdn import load_reduced, save_reduced
from sdn.errors import UserError
from src.config import compose
from src.faithful import notice


def test_only_a_faithful_run_with_an_sdn_has_something_to_say():
    assert notice(compose("experiment=spikingssm/mnist")) is None
    assert notice(compose("experiment=spikingssm/mnist", "faithful=true", "model.layer.neuron=sltt")) is None


def test_it_says_whose_sdn_it_uses(tmp_path):
    said = notice(compose("experiment=spikingssm/mnist", "faithful=true"))
    assert "the SDN for tau 0.125 is ours" in said
    assert "model.layer.sdn=" in said

    ours = load_reduced(0.125)
    for source, whose in (("released network x_125.pkl", "the released one"), ("my own fit", "yours")):
        ours.meta = {"source": source}
        save_reduced(ours, tmp_path / "sdn.safetensors")
        given = compose("faithful=true", f"model.layer.sdn={tmp_path / 'sdn.safetensors'}")
        assert whose in notice(given)


def test_a_file_that_is_no_sdn_is_told(tmp_path):
    torch.save({}, tmp_path / "x.pkl")
    with pytest.raises(UserError, match=r"sdn\.convert"):
        notice(compose("faithful=true", f"model.layer.sdn={tmp_path / 'x.pkl'}"))
