"""The neuron as a part of the layer: words, mappings, own classes; what it can do; states of several tensors."""

import copy
import io
import json
import sys

import pytest
import torch
from torch import nn

from models.spike import SS4D, EventEngine, SpikingSSM, load, save
from models.spike.export import StepGraph
from models.spike.network import Network, build
from models.spike.ssm import with_sdn_from
from models.spike.state import concat_rows, reset_rows, select_rows
from sdn.errors import UserError
from sdn.neurons import SDNNeuron, make_neuron
from src.optim import parameter_groups

SPECS = [
    "alif",
    "gelu",
    {"_name_": "resonate", "step_size": 0.1, "omega": [1, 5]},
    {"_name_": "sliding_psn", "k": 4, "surrogate": "atan"},
    {"_name_": "bptt", "surrogate": "sigmoid", "width": 0.5, "tau": 0.6},
]


def _model(neuron, dtype=torch.float64, **layer):
    torch.manual_seed(0)
    model = SpikingSSM(6, 2, prenorm=True, layer={"neuron": neuron, "d_state": 4, **layer}).to(dtype)
    with torch.no_grad():
        for part in model.layers:
            part.D.mul_(3)
    return model.eval()


@pytest.mark.parametrize("neuron", SPECS, ids=str)
def test_steps_chunks_and_rows(neuron):
    model, x = _model(neuron), torch.randn(3, 40, 6, dtype=torch.float64)
    whole = model(x)[0]
    state, steps = model.initial_state(3), []
    for x_t in x.unbind(1):
        y, state = model.step(x_t, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    state, parts = model.initial_state(3), []
    for part in x.split([1, 0, 25, 14], 1):
        y, state = model(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    state, more = torch.load(file, weights_only=True), torch.randn(3, 10, 6, dtype=torch.float64)
    want = model(more, state)[0]
    again = concat_rows([select_rows(state, [0, 1]), select_rows(state, [2])])
    torch.testing.assert_close(model(more, again)[0], want)
    got = model(more, reset_rows(state, torch.tensor([False, True, False])))[0]
    torch.testing.assert_close(got[[0, 2]], want[[0, 2]])
    torch.testing.assert_close(got[1:2], model(more[1:2])[0])


@pytest.mark.parametrize("neuron", SPECS, ids=str)
def test_trains_and_is_one_file(neuron, tmp_path):
    spec = {
        "model": {"d_model": 6, "n_layers": 2, "layer": {"neuron": neuron, "d_state": 4}},
        "encoder": {"kind": "linear", "d_input": 1},
        "decoder": {"kind": "sequence", "d_output": 3},
    }
    network, x = Network(spec), torch.randn(2, 30, 1)
    network(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    save(network, tmp_path / "network.safetensors")
    again = load(tmp_path / "network.safetensors")
    assert torch.equal(again(x), network.eval()(x))


@pytest.mark.parametrize("neuron", ["alif", "gelu", "resonate", "sliding_psn"])
def test_what_it_cannot_do_is_one_sentence(neuron):
    model = _model(neuron, torch.float32)
    with pytest.raises(UserError, match="event engine"):
        EventEngine(model)
    spec = {"model": {"d_model": 6, "layer": {"neuron": neuron}}, "encoder": {"kind": "linear", "d_input": 1},
            "decoder": {"kind": "sequence", "d_output": 3}}  # fmt: skip
    with pytest.raises(UserError, match="ONNX"):
        StepGraph(Network(spec))


class Scaled(nn.Module):
    """No neuron of ours: graded values, no step."""

    def forward(self, current, v_th=None):
        return torch.relu(current) * 0.7


def test_a_foreign_module_has_right_gradients_and_does_not_stream():
    torch.manual_seed(0)
    layer = SS4D(4, 4, neuron=Scaled()).double()
    u = torch.randn(2, 4, 20, dtype=torch.float64, requires_grad=True)
    wanted = [u, *layer.parameters()]
    assert torch.autograd.gradcheck(lambda *_: layer(u)[0], wanted, atol=1e-4)
    with pytest.raises(UserError, match="sample by sample"):
        layer.initial_state(2)
    with pytest.raises(UserError, match="event engine"):
        EventEngine(SpikingSSM(4, 1, layer={"neuron": Scaled()}))


def test_layers_take_modules_and_functions():
    mine = make_neuron("bptt", tau=0.3, learnable_tau=True, d_model=4)
    assert SS4D(4, neuron=mine).neuron is mine
    model = SpikingSSM(4, 2, layer={"neuron": mine})
    assert model.layers[0].neuron.logit_tau is not model.layers[1].neuron.logit_tau
    widths = []
    SpikingSSM(4, 2, layer={"neuron": lambda d: widths.append(d) or Scaled()})
    assert widths == [4, 4]
    with pytest.raises(UserError, match=r"torch\.nn\.Module"):
        SS4D(4, neuron=lambda d: 3)


def test_the_real_valued_twin_is_s4d():
    layer = SS4D(4, neuron="gelu")
    assert layer.ln_vth is None
    u = torch.randn(2, 4, 30)
    y = torch.stack([torch.fft.irfft(torch.fft.rfft(u, 60) * torch.fft.rfft(layer.kernel(30)[0], 60), 60)[..., :30]])[0]
    want = layer.mix(nn.functional.gelu(y + layer.D[:, None] * u))
    torch.testing.assert_close(layer(u)[0], want, rtol=1e-4, atol=1e-4)


OWN = """
from sdn import Neuron
from sdn.surrogate import spike
CALLED = []
class Mine(Neuron):
    binary = True
    def __init__(self, d_model, decay=0.5):
        super().__init__()
        self.decay = decay
    def step(self, current, u, v_th=None):
        u = self.decay * u + self.scaled(current, v_th)
        s = spike(u - 1)
        return s, u * (1 - s.detach())
def evil(**options):
    CALLED.append(options)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_neurons.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_neurons"
    sys.modules.pop("own_neurons", None)


def test_a_class_of_ones_own(own, tmp_path):
    mine = {"_name_": f"{own}.Mine", "decay": 0.4}
    spec = {"model": {"d_model": 6, "n_layers": 1, "layer": {"neuron": mine}},
            "encoder": {"kind": "linear", "d_input": 1}, "decoder": {"kind": "sequence", "d_output": 3}}  # fmt: skip
    network, path, x = Network(spec).eval(), tmp_path / "own.safetensors", torch.randn(2, 20, 1)
    save(network, path)
    assert torch.equal(load(path)(x), network(x))
    known = _model({"_name_": "bptt", "tau": 0.4})
    torch.testing.assert_close(_model(mine)(x.double().expand(2, 20, 6))[0], known(x.double().expand(2, 20, 6))[0])
    with pytest.raises(UserError, match="did you mean 'decay'"):
        SpikingSSM(6, layer={"neuron": mine | {"deccay": 3}})
    del sys.modules[own]
    with pytest.raises(UserError, match=own):  # nobody vouches for the module a file names
        load(path)


@pytest.mark.parametrize("name", ["own_neurons.evil", "os.system", "torch.nn.Linear", "nowhere.Mine"])
def test_a_file_cannot_name_any_callable(own, name):
    spec = {"model": {"d_model": 6, "n_layers": 1, "layer": {"neuron": {"_name_": name}}},
            "encoder": {"kind": "linear", "d_input": 1}, "decoder": {"kind": "sequence", "d_output": 3}}  # fmt: skip
    plain = {**spec, "model": {**spec["model"], "layer": {"neuron": "sltt"}}}
    with pytest.raises(UserError, match="neuron"):
        build(spec, Network(plain).state_dict())
    assert not getattr(sys.modules.get(own), "CALLED", [])


@pytest.mark.parametrize("neuron", ["sdn", {"_name_": "sdn", "tau": 0.125, "surrogate": "atan"}], ids=str)
def test_an_sdn_is_taken_from_the_weights(neuron, random_sdn):
    """Each layer's own, with no file at hand and whatever file the options name."""
    model = SpikingSSM(6, 2, layer={"neuron": "sltt"})
    for i, layer in enumerate(model.layers):
        layer.neuron = random_sdn(i)
    options = {"neuron": neuron, "d_state": 64} | ({"sdn": "/gone.safetensors"} if neuron == "sdn" else {})
    tensors = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    again = SpikingSSM(6, 2, layer=with_sdn_from(tensors, options))
    again.load_state_dict(model.state_dict())
    assert all(isinstance(layer.neuron, SDNNeuron) for layer in again.layers)
    x = torch.randn(2, 30, 6)
    assert torch.equal(again(x)[0], model(x)[0])
    json.dumps(options)
    with pytest.raises(UserError, match="not the weights of a reduced SDN"):
        SpikingSSM(6, 2, layer=with_sdn_from({}, options))


def _groups(model):
    return {
        g["name"]: sum(p.numel() for p in g["params"]) for g in parameter_groups(model.parameters(), model, 0.1, 0.1)
    }


@pytest.mark.parametrize("layer", [{"neuron": "bptt", "learnable_tau": True}, {"neuron": "alif", "trainable_B": True}])
def test_copies_train_with_the_same_groups(layer):
    model = SpikingSSM(8, 2, layer=layer)
    want = _groups(model)
    assert len(want) > 2
    averaged = torch.optim.swa_utils.AveragedModel(model)
    fresh = SpikingSSM(8, 2, layer=layer)
    fresh.load_state_dict(model.state_dict(), assign=True)
    for other in (copy.deepcopy(model), averaged.module, copy.copy(model), fresh):
        assert _groups(other) == want


def test_forward_mode_of_a_network_and_no_second_derivative():
    for norm in ("layer", "batch"):
        model = SpikingSSM(6, 2, norm=norm, prenorm=True, layer={"neuron": "bptt"}).double().eval()
        x, v, w = torch.randn(3, 2, 30, 6, dtype=torch.float64)
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad((model(leaf)[0] * w).sum(), leaf, create_graph=True)
        _, tangent = torch.func.jvp(lambda x, model=model: model(x)[0], (x,), (v,))
        torch.testing.assert_close((tangent * w).sum(), (grad.detach() * v).sum())
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            grad.square().sum().backward()
