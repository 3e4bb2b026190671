"""Evaluation, export and report of a trained network, on a tiny untrained one."""

import json
from types import SimpleNamespace

import pytest
import torch

from models.spike.network import load, save
from sdn.errors import UserError
from src.callbacks.firing_rate import neurons
from src.dataloaders.base import RaggedSet, SequenceData, TensorSet, collate_ragged
from src.evaluation.activity import LayerActivity, measure
from src.evaluation.energy import Constants
from src.evaluation.report.evaluation import evaluation_page
from src.evaluation.sizes import shape_of
from src.evaluation.summary import summary
from src.evaluation.twin import other_network
from src.export import network_of
from src.module import SequenceModule
from src.restore import batches, first, refuse_nan

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
    assert activity.neuron == "sdn"
    exact, _ = other_network(sdn, neurons(sdn.backbone))
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


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ({"neuron": "bptt", "reset": "soft"}, "hard reset"),
        ({"neuron": "bptt", "learnable_tau": True}, "learnt its own"),
        ({"neuron": "bptt", "u_r": -0.5}, "reset otherwise"),
        ({"neuron": "sltt", "tau": 0.3}, "no fitted SDN ships for tau 0.3"),
    ],
)
def test_neurons_that_no_sdn_imitates_are_judged_without_the_comparison(tmp_path, layer, why):
    module = _module(**layer)
    activity = measure(module, _batches(1))
    assert activity.swapped is None
    result = summary(module, activity) | {"checkpoint": "x.ckpt", "split": "test"}
    assert why in result["surrogate"]["why_not"]
    assert 0 < result["firing_rate"] < 1
    assert result["energy"]["spiking"]["joules"] > 0
    evaluation_page(tmp_path / "page.html", module, activity, result)
    assert why in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("neuron", ["gelu", {"_name_": "gelu"}])
def test_the_real_valued_twin_is_judged(tmp_path, neuron):
    module = _module(neuron=neuron)
    activity = measure(module, _batches(1))
    assert (activity.neuron, activity.binary, activity.swapped) == ("GELU", False, None)
    result = summary(module, activity) | {"checkpoint": "x.ckpt", "split": "test"}
    assert result["energy"]["spiking"] is None
    assert "no SDN imitates the neuron GELU" in result["surrogate"]["why_not"]
    evaluation_page(tmp_path / "page.html", module, activity, result)
    facts = network_of(module).facts
    assert "tau" not in facts


class Graded(torch.nn.Module):
    """A neuron of someone's own that sends on values, half of them 0."""

    def forward(self, current, v_th=None):
        return current.clamp(min=0)


def test_a_network_without_spikes_has_the_dense_counts_alone(tmp_path):
    module = _module(neuron="sltt")
    for layer in module.backbone.layers:
        layer.neuron = Graded()
    activity = measure(module, _batches(1))
    assert not activity.binary
    assert 0.2 < activity.layers[0].rate < 0.8  # outputs that are not 0
    result = summary(module, activity) | {"checkpoint": "x.ckpt", "split": "test"}
    assert result["energy"]["spiking"] is None
    assert result["energy"]["dense"]["joules"] > 0
    assert "Graded" in result["surrogate"]["why_not"]
    evaluation_page(tmp_path / "page.html", module, activity, result)


def test_samples_are_counted_by_targets():
    module = _module(neuron="sltt")
    module.decoder.forward = lambda h, lengths=None: h[: len(h) // 2, :3].mean(-1)  # two texts, one answer
    batch = (torch.randn(8, 32, 1), torch.randint(3, (4,)), {})
    activity = measure(module, [batch])
    assert activity.samples == 4
    assert activity.mean_length == 64


def test_classes_of_every_step_and_numbers():
    module = _module(neuron="sdn")
    config = module.config | {"task": {"_name_": "per_step"}, "decoder": {"_name_": "per_step"}}
    steps = SequenceModule(config, module.data).eval()
    y = torch.randint(3, (4, 32))
    y[0, 5:] = -1
    activity = measure(steps, [(torch.randn(4, 32, 1), y, {"lengths": torch.tensor([32, 32, 32, 8])})])
    assert len(activity.predictions) == len(activity.targets) == 5 + 64 + 8
    right = float((activity.predictions == activity.targets).double().mean())
    assert activity.figures["accuracy"] == pytest.approx(right)
    assert activity.swapped.changed_predictions is not None
    assert shape_of(steps, 32, [0.1, 0.1]).decode_every_step

    numbers = SequenceModule(module.config | {"task": {"_name_": "regression"}}, module.data).eval()
    activity = measure(numbers, [(torch.randn(4, 32, 1), torch.randn(4, 3), {})])
    assert set(activity.figures) == {"loss", "mae", "mse"}
    assert activity.predictions is None
    assert activity.swapped.changed_predictions is None


def test_figures_that_are_no_numbers_are_an_error():
    x, y, z = _batches(1)[0]
    x[0, 0] = float("nan")
    with pytest.raises(UserError, match="the figure loss came out as nan"):
        measure(_module(), [(x, y, z)])
    with pytest.raises(UserError, match=r"weights encoder\.bias in x\.ckpt are NaN"):
        refuse_nan({"encoder.weight": torch.zeros(2), "encoder.bias": torch.tensor([0.0, float("nan")])}, "x.ckpt")


class Sorted(SequenceData):
    """Ten samples of each of three classes, class by class."""

    d_output = 3

    def setup(self):
        y = torch.arange(3).repeat_interleave(10)
        self.test = TensorSet(y[:, None, None].float().repeat(1, 32, 1), y)


def test_a_limit_draws_from_all_classes_by_its_seed():
    data, module = Sorted(), _module()
    data.setup()
    module.config["loader"] = {"batch_size": 4, "eval_drop_last": True}

    def drawn(**options):
        return torch.cat([y for _, y, _ in batches(module, data, "test", **options)])

    some = drawn(limit=9)
    assert len(some) == 9
    assert set(some.tolist()) == {0, 1, 2}
    assert torch.equal(some, drawn(limit=9))
    assert not torch.equal(drawn(limit=9, batch_size=1), drawn(limit=9, seed=3))
    assert len(drawn(limit=99, batch_size=7)) == 30


def test_the_first_samples_are_those_of_the_data_whatever_is_sorted_by_length():
    data, module = Sorted(), _module()
    lengths = torch.tensor([5, 3, 9, 1, 2, 8])
    data.test = RaggedSet(lengths.float().repeat_interleave(lengths)[:, None], lengths.cumsum(0), torch.arange(6))
    data.collate = collate_ragged
    module.config["loader"] = {"batch_size": 2, "eval_drop_last": True, "bucket": 3}
    x, y, z = first(module, data, "test", 5)
    assert y.tolist() == [0, 1, 2, 3, 4]
    assert z["lengths"].tolist() == x[:, 0, 0].tolist() == lengths[:5].tolist()


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
    for words in ("Spikes", "Confusion", "Thresholds", "Energy", "Break-even", "Surrogate against exact neuron"):
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
    assert {"dataset": "digits", "tau": 0.125, "accuracy": 0.9}.items() <= again.facts.items()


def test_the_sample_that_is_shown_says_its_class_and_what_it_was_read_as():
    module, (x, y, z) = _module(), _batches(1)[0]
    reading = measure(module, [(x, y, z)]).reading
    with torch.no_grad():
        p = module(x, z)[0].softmax(-1)
    assert (reading.target, reading.guess) == (int(y[0]), int(p.argmax()))
    assert reading.probability == pytest.approx(float(p.max()))
    names = [f"class {c}" for c in range(len(p))]
    assert reading.words(names).startswith(f"class {int(y[0])}, read as class {int(p.argmax())} (probability 0.")
