"""Evaluation, export and report of a trained network, on a tiny untrained one."""

import json
from types import SimpleNamespace

import pytest
import torch

from models.spike.network import load, save
from sdn.errors import UserError
from src.evaluation.activity import LayerActivity, measure, swap_neurons
from src.evaluation.energy import Constants
from src.evaluation.report.evaluation import evaluation_page
from src.evaluation.sizes import shape_of
from src.evaluation.summary import summary
from src.export import network_of
from src.module import SequenceModule

LAYER = {"neuron": "sdn", "tau": 0.125, "d_state": 8, "bidirectional": False, "trainable_B": False}


def _module(**layer):
    torch.manual_seed(0)
    config = {
        "model": {"_name_": "spikingssm", "d_model": 16, "n_layers": 2, "prenorm": True, "norm": "batch",
                  "layer": LAYER | layer},
        "encoder": {"_name_": "linear"},
        "decoder": {"_name_": "sequence", "mode": "pool", "use_lengths": False},
        "task": {"_name_": "classification"},
        "dataset": {"_name_": "digits"},
    }  # fmt: skip
    data = SimpleNamespace(d_input=1, d_output=3, n_tokens=None, l_max=32)
    module = SequenceModule(config, data)
    module.train()
    module.backbone(torch.randn(4, 32, 16))
    return module.eval()


def _batches(n=3, lengths=None):
    torch.manual_seed(1)
    z = {} if lengths is None else {"lengths": torch.tensor(lengths)}
    return [(torch.randn(4, 32, 1), torch.randint(3, (4,)), z) for _ in range(n)]


def test_measure_counts_what_hooks_would_see():
    module, batches = _module(neuron="sltt"), _batches()
    seen = []
    handle = module.backbone.layers[1].neuron.register_forward_hook(lambda m, i, s: seen.append(s))
    activity = measure(module, batches)
    handle.remove()
    s = torch.cat(seen)
    torch.testing.assert_close(activity.layers[1].rates.float(), s.mean((0, 2)))
    assert activity.samples == 12
    assert activity.mean_length == 32
    assert activity.raster[1].shape == (16, 32)
    right = float((activity.predictions == activity.targets).double().mean())
    assert activity.figures["accuracy"] == pytest.approx(right)


def test_wrong_spikes_are_counted_against_the_exact_neuron():
    sdn = _module()
    activity = measure(sdn, _batches())
    assert activity.neuron == "SDNNeuron"
    exact = swap_neurons(sdn)
    x = torch.cat([x for x, _, _ in _batches()])
    s = {}
    for name, module in (("sdn", sdn), ("exact", exact)):
        hook = module.backbone.layers[0].neuron.register_forward_hook(lambda m, i, out, n=name: s.update({n: out}))
        with torch.no_grad():
            module(x)
        hook.remove()
    layer = activity.layers[0]  # the first layer's currents are the same in both networks
    assert layer.wrong == float((s["sdn"] != s["exact"]).sum())
    assert layer.true == float(s["exact"].sum())
    assert layer.memoryless_wrong >= layer.wrong


def test_padding_does_not_count():
    module = _module(neuron="sltt")
    padded = measure(module, _batches(1, lengths=[32, 8, 8, 8]))
    assert padded.mean_length == 14
    assert padded.layers[0].steps == 56


def test_limit_and_empty_data():
    assert measure(_module(), _batches(), limit=5).samples == 8
    with pytest.raises(UserError, match="nothing to evaluate"):
        measure(_module(), [])


def test_neurons_without_a_surrogate_are_refused_in_a_sentence():
    with pytest.raises(UserError, match="hard reset"):
        measure(_module(neuron="bptt", reset="soft"), _batches(1))


def test_summary_and_page(tmp_path):
    module = _module()
    activity = measure(module, _batches())
    result = summary(module, activity, Constants()) | {"checkpoint": "x.ckpt", "split": "test"}
    json.dumps(result)
    parts = {p["part"]: p for p in result["energy"]["spiking"]["parts"]}
    assert parts["encoder"]["mac"] == 16 * 32
    assert parts["decoder"]["mac"] == 16 * 3
    assert parts["layer 0 mix"]["ac"] == pytest.approx(activity.layers[0].rate * 2 * 16 * 16 * 32 + 2 * 16 * 32)
    assert sum(result["layers"][0]["rate_histogram"]) == 16
    evaluation_page(tmp_path / "page.html", module, activity, result)
    page = (tmp_path / "page.html").read_text()
    for words in ("Spikes", "Confusion", "Thresholds", "Energy", "Surrogate against exact neuron"):
        assert words in page


def test_dead_and_saturated_neurons():
    layer = LayerActivity(torch.tensor([0.0, 50.0, 100.0]).double(), steps=100.0)
    assert layer.rate == pytest.approx(0.5)
    assert layer.rates.tolist() == [0.0, 0.5, 1.0]


def test_shape_of_a_module():
    shape = shape_of(_module(bidirectional=True, neuron="sltt"), 32, [0.1, 0.2])
    assert (shape.d_model, shape.d_state, shape.bidirectional, shape.norm) == (16, 8, True, "batch")
    assert (shape.encoder_weights, shape.decoder_weights, shape.classes) == (16, 48, 3)


def test_network_of_a_checkpoint_is_the_module(tmp_path):
    module = _module()
    network = network_of(module, accuracy=0.9)
    save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    x = torch.randn(2, 20, 1)
    torch.testing.assert_close(again(x), module(x), rtol=0, atol=0)
    assert again.facts == {"dataset": "digits", "accuracy": 0.9}
