"""Our neurons beside those of SpikingJelly and snnTorch, where these are installed (requirements-benchmark.txt)."""

import pytest
import torch

from sdn.lif import lif_reference
from sdn.neurons import make_neuron

TAU = 0.25


def _time_first(neuron):
    """The README's adapter: (T, B, H) in and out."""
    return lambda x: neuron(x.movedim(0, -1)).movedim(-1, 0)


def test_spikingjelly_lif_node_is_bptt():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import surrogate

    theirs = neuron.LIFNode(
        tau=1 / (1 - TAU),
        decay_input=False,
        v_reset=0.0,
        detach_reset=True,
        step_mode="m",
        surrogate_function=surrogate.PiecewiseQuadratic(),
    )
    ours = _time_first(make_neuron("bptt", TAU))
    torch.manual_seed(0)
    x = torch.randn(60, 3, 5)
    grads, spikes = [], []
    for call in (theirs, ours):
        leaf = x.clone().requires_grad_()
        s = call(leaf)
        (s * torch.linspace(0, 1, 60)[:, None, None]).sum().backward()
        spikes.append(s.detach())
        grads.append(leaf.grad)
    assert torch.equal(*spikes)
    torch.testing.assert_close(*grads)


def test_inside_a_spikingjelly_network():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")

    class TimeFirst(torch.nn.Module):
        def __init__(self, neuron):
            super().__init__()
            self.neuron = neuron

        def forward(self, x):
            return self.neuron(x.movedim(0, -1)).movedim(-1, 0)

    torch.manual_seed(0)
    net = torch.nn.Sequential(layer.Linear(4, 6, step_mode="m"), TimeFirst(make_neuron("sdn")), layer.Linear(6, 2))
    y = net(torch.randn(20, 3, 4))
    y.sum().backward()
    assert y.shape == (20, 3, 2)
    assert net[0].weight.grad.abs().sum() > 0


def test_snntorch_leaky_fires_alike():
    snntorch = pytest.importorskip("snntorch")
    leaky = snntorch.Leaky(beta=TAU, reset_mechanism="zero", reset_delay=False)
    torch.manual_seed(0)
    x = torch.randn(60, 3, 5)
    mem, spikes = leaky.reset_mem(), []
    for x_t in x:
        s, mem = leaky(x_t, mem)
        spikes.append(s)
    ours = _time_first(make_neuron("sltt", TAU))(x)
    # It fires above the threshold only, we at it as well: no sum of random numbers meets it exactly.
    assert torch.equal(torch.stack(spikes), ours)
    assert torch.equal(ours.movedim(0, -1), lif_reference(x.movedim(0, -1), TAU)[1])


def test_spikingjelly_counts_the_same_synaptic_operations():
    op_counter = pytest.importorskip("spikingjelly.activation_based.op_counter")
    from src.evaluation.energy import mix

    torch.manual_seed(0)
    H, L = 12, 50
    linear = torch.nn.Linear(H, 2 * H, bias=False)
    s = make_neuron("sltt")(torch.randn(1, H, L))
    counter = op_counter.SynOpCounter()
    with op_counter.DispatchCounterMode([counter]), torch.no_grad():
        linear(s[0].T.contiguous())
    assert counter.get_total() == pytest.approx(mix(H, L, float(s.mean()), bias=False).ac)
