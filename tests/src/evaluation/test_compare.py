"""Bytes and break-even rates against values worked out by hand."""

import pytest

from sdn.errors import UserError
from src.evaluation import memory
from src.evaluation.compare import MEANING, side_by_side
from src.evaluation.energy import Constants, Operations, Shape, count
from src.evaluation.memory import Traffic, footprint, smallest, traffic

SIZES = dict(d_model=8, d_state=4, length=3, encoder_weights=8, decoder_weights=40, classes=5, norm="batch")
SHAPE = Shape(rates=[0.5], trainable_B=False, parameters=500, **SIZES)  # H 8, 2 modes, 3 steps


def test_bytes_by_hand_with_spikes():
    parts = {p.part: p for p in traffic(SHAPE)}
    assert parts["encoder"] == Traffic("encoder", 3 * 4 * (8 + 8), 0, 3 * 4 * (1 + 8))
    # A and C complex: 4 numbers a mode, and D; the state is read and written; in and out
    assert parts["layer 0 ssm state"] == Traffic("layer 0 ssm state", 3 * 4 * (4 * 16 + 8), 3 * 4 * 64, 3 * 4 * 16)
    assert parts["layer 0 neuron"] == Traffic("layer 0 neuron", 0, 3 * 4 * 16, 3 * (4 * 8 + 1))
    # half of the 8 columns of 16 weights, 16 biases; 8 bits in, 16 numbers out
    assert parts["layer 0 mix"] == Traffic("layer 0 mix", 3 * 4 * (64 + 16), 0, 3 * (1 + 4 * 16))
    assert parts["layer 0 glu"] == Traffic("layer 0 glu", 0, 0, 3 * 4 * 24)
    assert parts["layer 0 norm"] == Traffic("layer 0 norm", 3 * 4 * 16, 0, 3 * 4 * 16)
    assert parts["layer 0 residual"] == Traffic("layer 0 residual", 0, 0, 3 * 4 * 24)
    assert parts["decoder"] == Traffic("decoder", 4 * (40 + 5), 3 * 4 * 16, 4 * (8 + 5) + 3 * 4 * 8)


def test_bytes_by_hand_of_the_dense_twin_in_8_bits():
    parts = {p.part: p for p in traffic(SHAPE, spiking=False, int8=True)}
    assert parts["encoder"] == Traffic("encoder", 3 * (8 + 4 * 8), 0, 3 * (1 + 4 * 8))
    assert parts["layer 0 neuron"] == Traffic("layer 0 neuron")
    assert parts["layer 0 mix"] == Traffic("layer 0 mix", 3 * (128 + 4 * 16), 0, 3 * (8 + 4 * 16))
    assert parts["decoder"].weights == 40 + 4 * 5


def test_a_look_up_reads_a_row_and_a_network_that_decodes_every_step_has_no_mean():
    sizes = SIZES | {"encoder_weights": 0}
    parts = {p.part: p for p in traffic(Shape(rates=[0.5], decode_every_step=True, **sizes))}
    assert parts["encoder"] == Traffic("encoder", 3 * 4 * 8, 0, 3 * 4 * 8)
    assert parts["decoder"] == Traffic("decoder", 3 * 4 * 45, 0, 3 * 4 * 13)


def test_operations_in_8_bits():
    parts = {p.part: p for p in count(SHAPE, int8=True)}
    assert parts["encoder"] == Operations("encoder", 0, 0, 24, 24)
    assert parts["layer 0 mix"] == Operations("layer 0 mix", 0, 0, 0, 0.5 * 128 * 3 + 48)
    assert parts["layer 0 ssm state"] == {p.part: p for p in count(SHAPE)}["layer 0 ssm state"]
    assert parts["decoder"] == Operations("decoder", 0, 24, 40, 5)
    assert parts["encoder"].joules(Constants()) == pytest.approx(24 * 0.3e-12 + 24 * 0.1e-12)


def test_break_even_rates_by_hand():
    # the forms differ in the neuron and in the mix alone: 128 products a step in the mix, 8 neurons
    result = side_by_side(SHAPE, level="1MB")
    rates = {(row["form"], row["twin"]): row for row in result["break_even"]}
    neuron, column = 8 * (4.6 + 2 * 0.9), 128 * 0.9
    assert rates["spiking", "dense"]["operations"] == pytest.approx((128 * 4.6 - neuron) / column)
    byte = 100 / 8
    neuron_bytes = 4 * 16 + 4 * 8 + 1
    spikes = neuron + byte * (neuron_bytes + 1)  # besides the columns
    dense = 128 * 4.6 + byte * 4 * (128 + 8)
    by_hand = (dense - spikes) / (column + byte * 4 * 128)
    assert rates["spiking", "dense"]["with_memory"] == pytest.approx(by_hand)
    # 8-bit weights: encoder 8 products and 8 biases, decoder once, activations of a byte
    spikes8 = neuron + byte * (neuron_bytes + 1)
    dense8 = 128 * 0.3 + byte * (128 + 8)
    by_hand = (dense8 - spikes8) / (128 * 0.1 + byte * 128)
    assert rates["spiking_int8", "dense_int8"]["with_memory"] == pytest.approx(by_hand)
    at = result["break_even"][0]["operations"]
    assert at > 1  # so the count without memory calls spikes cheaper at any rate
    cheap = result["spiking"]["joules"] < result["dense"]["joules"]
    assert cheap


def test_a_network_at_its_break_even_rate_takes_what_its_twin_takes():
    sizes = dict(d_model=64, d_state=16, length=10, encoder_weights=64, decoder_weights=640, classes=10)
    for pair in range(3):
        row = side_by_side(Shape(rates=[0.1, 0.3], **sizes), level="1MB")["break_even"][pair]
        if not 0 <= row["with_memory"] <= 1:
            continue
        same = side_by_side(Shape(rates=[row["with_memory"]] * 2, **sizes), level="1MB")
        a, b = same[row["form"]], same[row["twin"]]
        assert a["joules_with_memory"] == pytest.approx(b["joules_with_memory"])


def test_the_level_is_the_smallest_that_holds_the_network():
    assert footprint(SHAPE) == 4 * (500 + (2 * 2 + 1) * 8 + 8)
    assert [smallest(n) for n in (8192, 8193, 2**15 + 1, 2**20 + 1)] == ["8KB", "32KB", "1MB", "DRAM"]
    assert side_by_side(SHAPE)["memory"] == {"level": "8KB", "pj_per_byte": 1.25, "network_bytes": footprint(SHAPE)}
    with pytest.raises(UserError, match="unknown memory"):
        memory.joules(1, "2MB")


def test_what_is_said_of_the_numbers_is_two_sentences():
    assert len(MEANING) == 2
    assert all(sentence.count(".") == 1 for sentence in MEANING)
