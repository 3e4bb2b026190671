"""Every network that ships: loads by name, knows its stored samples again, as a whole and as a stream."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.spike.network import load
from models.spike.shipped import PRETRAINED, locate, names
from sdn.errors import UserError

EXAMPLES = Path(__file__).parent / "shipped"


def _examples(name):
    kept = load_file(EXAMPLES / f"{name}.safetensors")
    x = kept["x"].long() if kept["x"].dtype == torch.uint8 else kept["x"].float()
    return x, kept["y"].long(), kept["answer"].long(), kept.get("lengths")


def _agree(found, answer):
    """Whole sequences have their class; of the steps a few may flip where another processor rounds otherwise."""
    share = (found == answer).float().mean()
    return share == 1 if answer.dim() == 1 else share > 0.995


@pytest.mark.parametrize("name", names())
def test_answers_stored_samples_as_recorded(name):
    network = load(name)
    x, y, answer, lengths = _examples(name)
    with torch.no_grad():
        found = network(x, lengths).argmax(-1)
    assert _agree(found, answer)
    assert (answer == y).float().mean() > network.facts["figures"]["test/accuracy"] - 0.25


@pytest.mark.parametrize("name", names())
def test_streams_to_the_same_answers(name):
    network = load(name)
    if network.backbone.layers[0].bidirectional:
        with pytest.raises(UserError, match="bidirectional"):
            network.initial_state()
        return
    x, _, answer, _ = _examples(name)
    state, constants, found = network.initial_state(len(x)), network.backbone.recurrence(), []
    for t in range(x.shape[1]):
        logits, state = network.step(x[:, t], state, constants)
        found.append(logits.argmax(-1))
    assert _agree(torch.stack(found, 1) if answer.dim() == 2 else found[-1], answer)


@pytest.mark.parametrize("name", names())
def test_card_says_what_the_header_says(name):
    network, card = load(name), (PRETRAINED / f"{name}.md").read_text(encoding="utf-8")
    facts = network.facts
    assert facts["command"] in card
    assert facts["limits"] in card
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in card
    assert f"| test/accuracy | {facts['figures']['test/accuracy']:.4f} |" in card


def test_readme_names_them_all():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    listed = readme.split("ship under a word", 1)[1].split("each with", 1)[0]
    assert re.findall(r"`([\w-]+)`", listed) == names()


def test_names_and_paths(tmp_path, monkeypatch):
    assert "digits" in names()
    with pytest.raises(UserError, match="digits"):
        locate("digit")
    with pytest.raises(UserError, match="no network file"):
        load("digits.safetensors")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_bytes(b"mine")
    assert locate("digits") == Path("digits")
