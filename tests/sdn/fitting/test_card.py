"""Model cards and the picture of window and width: made by one command each, on fewer sequences."""

import subprocess
import sys

import pytest
import torch

from sdn.fitting import card, window
from sdn.fitting.construct import construct
from sdn.lif import lif_reference
from sdn.weights import load_reduced, pretrained_path, pretrained_taus, save_reduced


def test_card_of_a_file(tmp_path, capsys):
    sdn = construct(0.5).float()
    sdn.meta |= {"command": "python -m sdn.refine --save x", "refine_data": [HEADER | {"law": "ar1", "rho": 0.9}]}
    save_reduced(sdn, tmp_path / "mine.safetensors")
    assert card.main([str(tmp_path / "mine.safetensors"), "--sequences", "20", "--steps", "64"]) == 0
    text = (tmp_path / "mine.md").read_text()
    assert "tau = 0.5" in text
    assert "python generate.py dataset -n white -N 30 -T 16 -t 0.5 -m 0.0 -s 2.0 --seed 4 --law ar1 --rho 0.9\n" in text
    assert "python -m sdn.refine --save x\n" in text
    assert all(text.count(f"| {law} |") == 2 for law in card.LAWS)
    assert "--sequences 20 --steps 64 --seed 1" in text
    assert "wrong/true" in capsys.readouterr().out


HEADER = {"law": "white", "mean": 0.0, "std": 2.0, "tau": 0.5, "name": "white", "seed": 4, "N": 30, "T": 16}


def test_card_refuses_nonsense(tmp_path, capsys):
    assert card.main([str(tmp_path / "none")]) == 2
    assert card.main([str(pretrained_path(0.2)), "--sequences", "0"]) == 2
    assert capsys.readouterr().err.count("error:") == 2


@pytest.mark.parametrize("law", card.LAWS)
def test_laws_have_their_moments_and_the_exact_neuron(law):
    current, mem, spike = card.draw(card.LAWS[law], 0.2, 400, 64, seed=1)
    expected, expected_spike, _ = lif_reference(current, 0.2)
    torch.testing.assert_close(mem, expected)
    assert torch.equal(spike.float(), expected_spike)
    assert current.mean().item() == pytest.approx(card.LAWS[law].mean, abs=0.1 * max(1, current.std().item()))
    again, _, _ = card.draw(card.LAWS[law], 0.2, 400, 64, seed=1)
    other, _, _ = card.draw(card.LAWS[law], 0.2, 400, 64, seed=2)
    assert torch.equal(current, again)
    assert not torch.equal(current, other)


def test_shipped_cards_state_what_the_files_do():
    """The figures in the cards are those of a fresh, shorter measurement."""
    for tau in pretrained_taus():
        text = pretrained_path(tau).with_suffix(".md").read_text(encoding="utf-8")
        stated = {row.split(" | ")[0][2:]: row.split(" | ") for row in text.splitlines() if row.startswith("| ")}
        for law, predictor, score in card.measure(load_reduced(tau), sequences=100, seed=7):
            if predictor == card.OWN:
                figures = next(row.split(" | ") for row in text.splitlines() if row.startswith(f"| {law} |"))
                assert float(figures[1]) == pytest.approx(score.rate, abs=0.1)
                assert float(figures[3]) == pytest.approx(score.ratio, rel=0.4, abs=2e-3)
        assert set(card.LAWS) <= set(stated)


def test_picture_and_table(tmp_path):
    out = tmp_path / "window.png"
    arguments = ["--windows", "1", "3", "--widths", "3", "--steps", "1", "--sequences", "12", "--output", str(out)]
    assert window.main(arguments) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 1 + 2 * 2 * 2
    assert window.main(["--windows", "0"]) == 2


def test_import_is_quick():
    code = "import sdn, sys; assert 'torch' not in sys.modules; assert sdn.SDN; sdn.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "has no attribute 'nothing'" in done.stderr
