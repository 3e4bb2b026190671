import pytest
import torch

from models.spike.network import Network
from models.spike.sampling import sample, top_p_filter
from sdn.errors import UserError

SPEC = {
    "model": {"d_model": 16, "n_layers": 2, "prenorm": True, "layer": {"neuron": "sltt", "d_state": 8}},
    "encoder": {"kind": "adaptive", "n_tokens": 20, "cutoffs": [5, 10], "div_val": 2},
    "decoder": {"kind": "adaptive"},
}


def _network():
    torch.manual_seed(0)
    network = Network(SPEC).double().eval()
    torch.nn.init.normal_(network.decoder.head.projection)
    return network


def test_nucleus_by_hand():
    p = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    kept = lambda top_p: torch.isfinite(top_p_filter(p, top_p)).tolist()  # noqa: E731
    assert kept(0.4) == [False, True, False, False]
    assert kept(0.5) == [False, True, False, False]
    assert kept(0.7) == [False, True, False, True]
    assert kept(1.0) == [True] * 4


def test_greedy_tokens_are_the_most_likely_of_the_parallel_model():
    network, tokens = _network(), [3, 7, 1]
    tokens += list(sample(network, torch.tensor(tokens), 12, temperature=0))
    with torch.no_grad():
        likely = network(torch.tensor([tokens])).argmax(-1)[0].tolist()
    assert tokens[3:] == likely[2:-1]


def test_a_seed_gives_the_same_text_and_another_another():
    network, prompt = _network(), torch.tensor([1])
    draw = lambda seed: list(sample(network, prompt, 30, generator=torch.Generator().manual_seed(seed)))  # noqa: E731
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"prompt": torch.zeros(0, dtype=torch.long)}])
def test_refusals(bad):
    arguments = {"prompt": torch.tensor([1]), "length": 1} | bad
    with pytest.raises(UserError):
        list(sample(_network(), **arguments))


def test_classifiers_do_not_write():
    spec = SPEC | {"encoder": {"kind": "linear", "d_input": 1}, "decoder": {"kind": "sequence", "d_output": 2}}
    with pytest.raises(UserError, match="language model"):
        list(sample(Network(spec).eval(), torch.tensor([1]), 1))
