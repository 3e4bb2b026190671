import pytest

from sdn.errors import UserError
from src.evaluation.energy import Constants, Operations, Shape, count, mix, paper_count, total


def test_the_papers_wt103_numbers():
    # 16 layers, L = 8192, 1024 -> 2048; the paper prints 275.2 G MAC = 1.265 J and 72.66 G AC = 65.40 mJ.
    # 16 * 8192 * 2 * 1024^2 is 274.88 G: the printed figure is 0.12 % off its own product.
    counted = paper_count(16, 1024, 8192, rate=0.264)
    assert counted["dense_mac"] == pytest.approx(275.2e9, rel=2e-3)
    assert counted["dense_joules"] == pytest.approx(1.265, rel=1e-3)
    assert counted["spiking_ac"] == pytest.approx(72.66e9, rel=2e-3)
    assert counted["spiking_joules"] == pytest.approx(65.40e-3, rel=2e-3)


def test_hand_count_of_a_tiny_network():
    sizes = dict(d_model=2, d_state=4, length=3, encoder_weights=2, decoder_weights=10, classes=5)
    shape = Shape(rates=[0.5], norm="batch", **sizes)
    parts = {p.part: p for p in count(shape, Constants(sigmoid_macs=4))}
    assert parts["encoder"] == Operations("encoder", 6, 6)
    assert parts["layer 0 ssm state"] == Operations("layer 0 ssm state", (2 * 8 + 1) * 6, 0)
    assert parts["layer 0 neuron"] == Operations("layer 0 neuron", 6, 12)
    assert parts["layer 0 mix"] == Operations("layer 0 mix", 0, 0.5 * 8 * 3 + 12)
    assert parts["layer 0 glu"].mac == 5 * 6
    assert parts["layer 0 norm"] == Operations("layer 0 norm", 6, 6)
    assert parts["layer 0 residual"] == Operations("layer 0 residual", 0, 6)
    assert parts["decoder"] == Operations("decoder", 10, 6 + 5)
    assert total(list(parts.values())).mac == sum(p.mac for p in parts.values())


def test_dense_form_has_no_neuron_and_more_mix_energy():
    shape = Shape(d_model=8, d_state=4, length=10, rates=[0.1, 0.2], decoder_weights=16, classes=2)
    dense = {p.part: p for p in count(shape, spiking=False)}
    spiking = {p.part: p for p in count(shape)}
    assert dense["layer 1 neuron"] == Operations("layer 1 neuron")
    assert dense["layer 1 mix"].joules(Constants()) > spiking["layer 1 mix"].joules(Constants())
    assert mix(8, 10, 0.0).ac == 160


def test_plain_form_adds_the_input_instead_of_multiplying_by_b():
    plain = count(Shape(d_model=2, d_state=4, length=3, rates=[0.5], trainable_B=False))[1]
    assert plain == Operations("layer 0 ssm state", (2 * 6 + 1) * 6, 2 * 6)


@pytest.mark.parametrize("bad", [{"rates": [1.5]}, {"rates": [0.1], "norm": "group"}])
def test_nonsense_is_refused(bad):
    with pytest.raises(UserError):
        count(Shape(d_model=2, d_state=2, length=1, **bad))


@pytest.mark.parametrize("pool", [False, True])
def test_an_encoder_of_windows_works_once_a_step_or_once_a_sample(pool):
    from types import SimpleNamespace

    from src.config import compose
    from src.evaluation.sizes import shape_of
    from src.module import SequenceModule

    config = compose("experiment=spikingssm/imdb_windows", "model.d_model=8", f"encoder.pool={str(pool).lower()}")
    module = SequenceModule(config, SimpleNamespace(d_input=1, d_output=2, n_tokens=20, l_max=64))
    assert shape_of(module, 10.0, [0.1, 0.1]).encoder_weights == 16 * 7 * 8 * (4 if pool else 1)
