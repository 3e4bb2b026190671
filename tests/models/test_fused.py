"""The fast path of whole layers against the plain composition: values and all gradients, in every mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import sdn
from models.spike import fused
from models.spike.ssm import SpikingSSM
from sdn.network import ReducedSDN, reduced_shapes
from sdn.neurons import SDNNeuron
from sdn.surrogate import spike

pytest.importorskip("numba")
H = 2 * fused.WIDTH


def network(n_layers: int = 2, dtype: torch.dtype = torch.float64, width: int = H, **options: object) -> SpikingSSM:
    torch.manual_seed(0)
    options = {"layer": {"neuron": "sltt", "d_state": 8}, "norm": "layer", "prenorm": True} | options
    model = SpikingSSM(width, n_layers, **options).to(dtype)
    with torch.no_grad():
        for parameter in model.norms.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def run(model: SpikingSSM, x: Tensor, lengths: Tensor | None, fast: bool, monkeypatch) -> dict[str, Tensor]:
    """Output, gradients and buffers of one pass; dropout draws the same masks on both paths."""
    model, x = copy.deepcopy(model), x.clone().requires_grad_()
    assert fused.ready(model, x)
    with monkeypatch.context() as patch:
        if not fast:
            patch.setattr(fused, "ready", lambda *_: False)
        torch.manual_seed(1)
        y = model(x, lengths=lengths)[0]
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype))
    found = {"y": y.detach(), "x": x.grad} | {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }
    return found | dict(model.named_buffers())


def check(model: SpikingSSM, x: Tensor, monkeypatch, lengths: Tensor | None = None, tolerance: float = 1e-10) -> None:
    ours, truth = (run(model, x, lengths, fast, monkeypatch) for fast in (True, False))
    assert ours.keys() == truth.keys()
    for name, value in truth.items():
        scale = max(float(value.abs().max()), 1e-6) * (1e3 if "running" in name else 1)  # a momentum in float32
        torch.testing.assert_close(ours[name], value, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_values_and_gradients(norm: str, prenorm: bool, bidirectional: bool, monkeypatch):
    layer = {"neuron": "bptt" if prenorm else "sltt", "d_state": 8, "bidirectional": bidirectional}
    model = network(norm=norm, prenorm=prenorm, dropout=0.3, layer=layer)
    check(model, torch.randn(3, 70, H, dtype=torch.float64), monkeypatch)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_padding_stays_out(norm: str, prenorm: bool, monkeypatch):
    model = network(norm=norm, prenorm=prenorm, mask_padding=True, layer={"neuron": "sltt", "bidirectional": True})
    x = torch.randn(4, 37, H, dtype=torch.float64)
    check(model, x, monkeypatch, torch.tensor([37, 20, 1, 33]))


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_fixed_statistics(norm: str, monkeypatch):
    check(network(norm=norm).eval(), torch.randn(2, 50, H, dtype=torch.float64), monkeypatch)


@pytest.mark.parametrize(
    "layer",
    [
        {"neuron": "bptt", "reset": "soft"},
        {"neuron": "bptt", "u_r": -0.5, "tau": 0.7},
        {"neuron": "sltt", "trainable_B": True, "shared_vth": True},
        {"neuron": "sltt", "learnable_vth": False, "lr": 0.0, "d_state": 2},
    ],
)
def test_options_of_a_layer(layer: dict, monkeypatch):
    check(network(layer=layer), torch.randn(2, 50, H, dtype=torch.float64), monkeypatch)


class Own(sdn.Neuron):
    """A neuron of one's own: a step, and an output that draws random numbers."""

    binary = True

    def step(self, current, u, v_th=None):
        u = 0.5 * u + self.scaled(current, v_th) + 0.1 * torch.rand_like(current)
        s = spike(u - 1)
        return s, u * (1 - s.detach())


NEURONS = {
    "sdn": "sdn",
    "sdn, atan": {"_name_": "sdn", "surrogate": "atan"},
    "gelu": "gelu",
    "alif": {"_name_": "alif", "tau": 0.8},
    "resonate": {"_name_": "resonate", "step_size": 0.5, "omega": (0.2, 1.0), "damping": (0.1, 0.5)},
    "sliding_psn": {"_name_": "sliding_psn", "k": 4},
    "own": Own(),
    "a module": torch.nn.Tanh(),
    "learnt tau": {"_name_": "sltt", "learnable_tau": True, "tau": 0.4},
    "learnt tau and u_r": {"_name_": "bptt", "learnable_tau": True, "learnable_u_r": True, "tau": 0.7, "u_r": -0.2},
    "learnt tau, soft": {"_name_": "bptt", "learnable_tau": True, "reset": "soft"},
    "rectangle": {"_name_": "bptt", "surrogate": "rectangle"},
    "sigmoid": {"_name_": "bptt", "surrogate": "sigmoid", "reset": "soft"},
    "atan": {"_name_": "sltt", "surrogate": "atan", "width": 0.7},
}


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("way", ["causal", "bidirectional", "padded"])
def test_neurons(neuron: str, way: str, monkeypatch):
    padded, causal = way == "padded", way == "causal"
    model = network(
        norm="layer" if causal else "batch", prenorm=causal, dropout=0.3, mask_padding=padded,
        layer={"neuron": NEURONS[neuron], "d_state": 4, "bidirectional": not causal},
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.layers:
            layer.D.mul_(2)
    x = torch.randn(3, 41, H, dtype=torch.float64)
    check(model, x, monkeypatch, torch.tensor([41, 7, 30]) if padded else None)


@pytest.mark.parametrize("neuron", ["sdn", "gelu", "alif", "learnt tau and u_r", "sigmoid", "atan"])
def test_neurons_in_float32(neuron: str, monkeypatch):
    layer = {"neuron": NEURONS[neuron], "d_state": 8}
    # vectors of 8 and of 16 numbers add in another order; float64, where that does not show, is compared tightly above
    check(network(1, dtype=torch.float32, layer=layer), torch.randn(3, 70, H), monkeypatch, tolerance=5e-4)


@pytest.mark.parametrize(("d", "k", "layers"), [(8, 8, 1), (5, 3, 1), (1, 1, 1), (4, 6, 2), (5, 3, 3), (1, 1, 2)])
@pytest.mark.parametrize("length", [1, 3, 6, 29])
def test_sdns_of_any_size(d: int, k: int, layers: int, length: int, monkeypatch):
    torch.manual_seed(3)
    sdn_ = ReducedSDN(
        {name: torch.randn(shape) / 2 for name, shape in reduced_shapes(d, k, layers).items()}, 0.125
    )  # fmt: skip
    model = network(1, layer={"neuron": SDNNeuron(sdn_), "d_state": 4})
    check(model, torch.randn(2, length, H, dtype=torch.float64), monkeypatch)


@pytest.mark.parametrize("drive", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_few_and_many_spikes(drive: float, dropout: float, monkeypatch):
    model = network(1, dropout=dropout, width=5 * fused.WIDTH)
    with torch.no_grad():
        model.layers[0].D.fill_(drive)
    check(model, torch.randn(3, 75, 5 * fused.WIDTH, dtype=torch.float64).abs(), monkeypatch)


def test_hooks_of_a_neuron_see_its_currents_and_spikes(monkeypatch):
    model, seen = network(dtype=torch.float32), []
    x, y = torch.randn(2, 20, H), []
    for fast in (True, False):
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(fused, "ready", lambda *_: False)
            handle = model.layers[1].neuron.register_forward_hook(lambda _, given, s: seen.append((given[0], s)))
            y.append(model(x)[0])
            handle.remove()
    (current, s), (true_current, true_s) = seen
    torch.testing.assert_close(current, true_current, rtol=1e-4, atol=1e-4)
    assert torch.equal(s, true_s)
    torch.testing.assert_close(*y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 2, H), (1, 64, H), (2, 1, H), (5, 65, 3 * fused.WIDTH), (2, 200, 5 * H)])
def test_shapes(shape: tuple[int, int, int], monkeypatch):
    check(network(1, width=shape[2]), torch.randn(shape, dtype=torch.float64), monkeypatch)


def test_every_factor_of_a_transform(monkeypatch):
    for length in (8, 9, 13, 23, 40, 60, 100, 128):
        check(network(1), torch.randn(2, length, H, dtype=torch.float64), monkeypatch)


def test_several_threads_and_an_input_that_is_not_contiguous(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        check(network(), torch.randn(7, H, 90, dtype=torch.float64).transpose(1, 2), monkeypatch)
    finally:
        torch.set_num_threads(before)


def test_float32_within_its_rounding(monkeypatch):
    check(network(dtype=torch.float32), torch.randn(4, 64, H), monkeypatch, tolerance=1e-4)


def test_a_constant_drive(monkeypatch):
    model = network(1, norm="none")
    with torch.no_grad():
        model.layers[0].kernel.C.zero_()
        model.layers[0].D.fill_(1)
    check(model, torch.full((2, 60, H), 0.9, dtype=torch.float64), monkeypatch)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_sample(bad: float):
    model, x = network(dtype=torch.float32).eval(), torch.randn(4, 30, H)
    with torch.no_grad():
        clean = model(x)[0]
        x[1, 3, 2] = bad
        y = model(x)[0]
    assert not torch.isfinite(y[1]).all()
    torch.testing.assert_close(y[[0, 2, 3]], clean[[0, 2, 3]])


def test_what_it_leaves_to_the_plain_composition():
    x = torch.randn(2, 20, H)
    model = network(dtype=torch.float32)
    assert fused.ready(model, x)
    assert not fused.ready(model, x.double())
    assert not fused.ready(network(dtype=torch.float32, width=fused.WIDTH - 1), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.ready(model, x)
    for part in (model.layers[1], model.layers[0].mix, model.norms[0]):
        handle = part.register_forward_hook(lambda *_: None)
        assert not fused.ready(model, x)
        handle.remove()
    assert fused.ready(model, x)


def test_backward_twice():
    model, x = network(dtype=torch.float32), torch.randn(2, 20, H, requires_grad=True)
    y = model(x)[0].sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(y, x)[0], first)


@pytest.mark.parametrize(
    ("length", "H", "taken"),
    [(64, 2 * fused.WIDTH, True), (1536, 2 * fused.WIDTH, True), (1537, 2 * fused.WIDTH, False), (8, 1024, False)],
)
def test_long_and_wide_layers_are_left_to_the_plain_composition(length: int, H: int, taken: bool):
    model = network(1, dtype=torch.float32, width=H)
    assert fused.ready(model, torch.randn(1, length, H)) == taken
