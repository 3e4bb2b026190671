"""Neurons as modules: options, learning, the surrogate's fused kernel, one step equal to all steps."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from sdn import kernels, ops
from sdn.errors import UserError
from sdn.lif import lif_reference
from sdn.network import ReducedSDN, reduced_shapes
from sdn.neurons import LIF, SDNNeuron, make_neuron
from sdn.weights import load_reduced


def _reduced(d=8, k=8, layers=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = reduced_shapes(d, k, layers)
    return ReducedSDN(
        {name: torch.randn(shape, generator=g) / max(shape, default=1) for name, shape in shapes.items()}, 0.2
    )


OPTIONS = [
    {"name": "sltt"},
    {"name": "bptt", "tau": 0.7, "reset": "soft"},
    {"name": "bptt", "u_r": -0.4},
    {"name": "sltt", "learnable_tau": True, "d_model": 5},
    {"name": "bptt", "learnable_tau": True, "learnable_u_r": True, "u_r": 0.2, "d_model": 5},
    {"name": "sdn"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_step_equals_scan_equals_reference(options):
    neuron = make_neuron(**options)
    current, v_th, u0 = torch.randn(3, 5, 40), torch.rand(5) + 0.5, torch.rand(3, 5) - 0.5
    tau, u_r, reset = neuron.constants()
    _, truth, end = lif_reference(current / v_th.unsqueeze(-1), tau, u_r, reset, u0)
    s, u = neuron.scan(current, u0, v_th)
    assert torch.equal(s, truth)
    assert torch.equal(u, end)
    u, steps = u0, []
    for t in range(40):
        s_t, u = neuron.step(current[..., t], u, v_th)
        steps.append(s_t)
    assert torch.equal(torch.stack(steps, -1), truth)
    assert torch.equal(u, end)


@pytest.mark.parametrize("options", OPTIONS[:-1], ids=str)
def test_forward_and_gradients_equal_reference(options):
    neuron = make_neuron(**options)
    current, v_th = torch.randn(3, 5, 200, requires_grad=True), (torch.rand(5) + 0.5).requires_grad_()
    wanted = [current, v_th, *neuron.parameters()]

    def run():
        s = neuron(current, v_th)
        return s, torch.autograd.grad((s * torch.linspace(0, 1, 200)).sum(), wanted)

    s, got = run()
    with kernels.use("reference"):
        truth, expected = run()
    assert torch.equal(s, truth)
    assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_learnt_tau_stays_between_0_and_1():
    neuron = LIF(0.5, "bptt", learnable_tau=True, learnable_u_r=True, u_r=0.25, d_model=3)
    assert_close(neuron.tau, torch.full((3,), 0.5))
    assert_close(neuron.u_r, torch.full((3,), 0.25))
    optimizer = torch.optim.SGD(neuron.parameters(), 100.0)
    neuron(torch.randn(2, 3, 50)).sum().backward()
    optimizer.step()
    assert ((neuron.tau > 0) & (neuron.tau < 1)).all()
    assert set(neuron.state_dict()) == {"logit_tau", "reset_value"}
    assert all(parameter._optim == {"weight_decay": 0.0} for parameter in neuron.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lif"}, "unknown neuron"),
        ({"name": "sltt", "tau": 1.0}, "tau"),
        ({"name": "sltt", "reset": "none"}, "unknown reset"),
        ({"name": "sltt", "u_r": 1.0}, "below 1"),
        ({"name": "bptt", "reset": "soft", "u_r": 0.1}, "soft reset"),
        ({"name": "sltt", "learnable_u_r": True, "d_model": 4}, "choose neuron bptt"),
        ({"name": "bptt", "learnable_tau": True}, "d_model"),
        ({"name": "sdn", "reset": "soft"}, "hard reset to 0"),
        ({"name": "sdn", "learnable_tau": True, "d_model": 4}, "one tau"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        make_neuron(**options)


# ----------------------------------------------------------------------------------------------------------- surrogate


@pytest.mark.parametrize("name", ["cpu", "plain"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("d", "k"), [(8, 8), (1, 1), (5, 3), (6, 40), (12, 7)])
def test_fused_surrogate_equals_layers(name, d, k, layers):
    """mem to 1e-5 and gradients of I and v_th, over lengths shorter than the kernel and longer than a block."""
    network = _reduced(d, k, layers)
    weights = network.flat(), network.sizes
    for shape in ((1, 1, 1), (2, 3, 30), (2, 3, 700)):
        v_th = (torch.rand(shape[1]) + 0.5).requires_grad_()
        current = torch.randn(shape, requires_grad=True)
        x = current / v_th.unsqueeze(-1)
        with kernels.use(name), torch.no_grad():
            mem = kernels.pick("cpu").sdn_forward(current.detach().flatten(0, 1), v_th.detach(), *weights, True)[1]
        assert_close(mem.view(shape), network(x), rtol=0, atol=1e-5)
        outgoing = torch.randn(shape)
        with kernels.use(name):
            s = SDNNeuron(network)(current, v_th)
            got = torch.autograd.grad(s, [current, v_th], outgoing)
        with kernels.use("reference"):
            truth = SDNNeuron(network)(current, v_th)
            expected = torch.autograd.grad(truth, [current, v_th], outgoing)
        undecided = (network(x) + x - 1).abs() < 1e-5
        assert torch.equal(s[~undecided], truth[~undecided])
        assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tau", [0.125, 0.2])
def test_fused_surrogate_of_the_shipped_weights(tau, record_property):
    """Rounding stays below half a unit in the last place of the terms that are added up; hardly a spike differs."""
    network, current = load_reduced(tau), torch.randn(64, 8, 512, generator=torch.Generator().manual_seed(3))
    weights = network.flat(), network.sizes
    exact = ReducedSDN({name: value.double() for name, value in network.named_buffers()}, tau)(current.double())
    terms = ReducedSDN({name: value.double().abs() for name, value in network.named_buffers()}, tau)
    s, mem = kernels.pick("cpu").sdn_forward(current.flatten(0, 1), None, *weights, True)
    layers = network(current)
    for found in (mem.view_as(exact), layers):
        assert ((found - exact).abs() / terms(current.double().abs())).max() <= 2**-24
    differing = (s.view_as(current) != (layers + current >= 1)).double().mean().item()
    record_property("differing spikes", differing)
    assert differing < 1e-4


@pytest.mark.parametrize("name", ["cpu", "plain"])
def test_surrogate_types_and_registration(name):
    network = _reduced()
    neuron, current = SDNNeuron(network), torch.randn(2, 3, 60)
    weights = network.flat(), network.sizes
    with kernels.use(name):
        s = neuron(current)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            x = current.to(dtype).requires_grad_()
            spikes = neuron(x)
            spikes.sum().backward()
            assert spikes.dtype == x.grad.dtype == dtype
            assert (spikes.float() != s).float().mean() < 0.02
        assert neuron(torch.zeros(2, 3, 0)).shape == (2, 3, 0)
        assert neuron(torch.zeros(0, 3, 9)).shape == (0, 3, 9)
        silent = current.clone()
        silent[..., 20] = torch.nan
        assert torch.equal(neuron(silent)[..., :20], s[..., :20])
        assert not neuron(silent)[..., 20].any()
        x, v_th = current.clone().requires_grad_(), torch.ones(3, requires_grad=True)
        torch.library.opcheck(torch.ops.sdn.surrogate, (x, v_th, *weights, True))
        torch.library.opcheck(torch.ops.sdn.surrogate, (current, None, *weights, False))


def test_surrogate_frozen_and_free_of_memory_without_gradient():
    neuron, kept = SDNNeuron(_reduced()), []
    assert not list(neuron.parameters())
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        neuron(torch.randn(2, 3, 50))
    assert not kept


def test_deep_surrogate_runs_layer_by_layer_and_says_so_once():
    neuron, current = SDNNeuron(_reduced(4, 3, layers=3)), torch.randn(2, 3, 50)
    ops._say_deep.cache_clear()
    with pytest.warns(UserWarning, match="layer by layer"):
        s = neuron(current)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(neuron(current), s)
    assert torch.equal(s, (neuron.sdn(current) + current >= 1).float())
