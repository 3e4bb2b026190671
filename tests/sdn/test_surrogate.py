"""Surrogate gradients by name: their formulas, every back end against the reference, forward-mode and twice."""

import math

import pytest
import torch
from torch.testing import assert_close

from sdn import kernels, ops
from sdn.errors import UserError
from sdn.lif import lif_reference
from sdn.network import ReducedSDN, reduced_shapes
from sdn.neurons import SDNNeuron, make_neuron
from sdn.surrogate import WIDTHS, Surrogate, make_surrogate, spike, triangle

KINDS = [(name, width) for name in WIDTHS for width in (None, 0.4)]


@pytest.mark.parametrize("name", WIDTHS)
def test_area_and_peak(name):
    """The slope of a step from 0 to 1; at the default width the peak is 1. The default of all is the triangle."""
    v = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    for width in (None, 0.3, 2.0):
        psi = make_surrogate(name, width)
        assert_close(torch.trapezoid(psi(v), v).item(), 1.0, rtol=0, atol=3e-3)
        assert psi(torch.zeros(1)).item() == pytest.approx(1.0 if width is None else WIDTHS[name] / width)
        assert torch.equal(psi(v), psi(-v))
    assert make_surrogate() == Surrogate("triangle", 1.0)


def test_formulas_at_a_point():
    v = torch.tensor([0.3], dtype=torch.float64)
    q = 1 / (1 + math.exp(-0.6))
    want = {"triangle": (1 - 0.6) / 0.5, "rectangle": 1.0, "sigmoid": q * (1 - q) / 0.5,
            "atan": 1 / (math.pi * 0.5 * 1.36)}  # fmt: skip
    for name, value in want.items():
        assert make_surrogate(name, 0.5)(v).item() == pytest.approx(value)
    assert torch.equal(triangle(v), (1 - v.abs()).clamp_min(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "triangel"}, "did you mean 'triangle'"),
        ({"name": "atan", "width": 0}, "above 0"),
        ({"name": "atan", "width": math.nan}, "above 0"),
        ({"name": "atan", "width": math.inf}, "above 0"),
        ({"name": "atan", "width": "wide"}, "above 0"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        make_surrogate(**options)


@pytest.mark.parametrize("back_end", ["cpu", "plain"])
@pytest.mark.parametrize(("name", "width"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lif_equals_reference(back_end, name, width, dtype):
    psi = make_surrogate(name, width)
    torch.manual_seed(0)
    current = torch.randn(2, 3, 300, dtype=dtype, requires_grad=True)
    tau, v_th, u_r = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in ([0.2, 0.6, 0.9], [0.7, 1, 1.3], [0.0]))
    outgoing, wanted = torch.randn(2, 3, 300, dtype=dtype), [current, tau, v_th]
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-4}
    for gradient, reset in (("sltt", "hard"), ("bptt", "hard"), ("bptt", "soft")):
        truth = lif_reference(current / v_th[:, None], tau, u_r, reset, gradient=gradient, surrogate=psi)[1]
        with kernels.use(back_end):
            fast = ops.lif(current, tau, v_th, u_r, reset, gradient, psi)
            got = torch.autograd.grad(fast, wanted, outgoing)
        assert torch.equal(fast, truth)
        for a, b in zip(got, torch.autograd.grad(truth, wanted, outgoing), strict=True):
            assert_close(a, b, **close)


def _network(layers=1):
    g = torch.Generator().manual_seed(0)
    shapes = reduced_shapes(8, 8, layers)
    return ReducedSDN({n: torch.randn(s, generator=g) / max(s, default=1) for n, s in shapes.items()}, 0.2)


@pytest.mark.parametrize("back_end", ["cpu", "plain"])
@pytest.mark.parametrize(("name", "width"), KINDS)
def test_sdn_equals_reference(back_end, name, width):
    torch.manual_seed(0)
    neuron = SDNNeuron(_network(), name, width)
    current, v_th = torch.randn(2, 3, 300, requires_grad=True), torch.tensor([0.7, 1, 1.3], requires_grad=True)
    outgoing, results = torch.randn(2, 3, 300), []
    for kind in (back_end, "reference"):
        with kernels.use(kind):
            results.append(torch.autograd.grad(neuron(current, v_th), [current, v_th], outgoing))
    assert_close(*results, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", WIDTHS)
def test_no_gradient_from_nothing(name):
    """Drives at infinity and NaN: the same as the reference, in every back end."""
    current = torch.tensor([0.5, torch.inf, 0.2, -torch.inf, 0.9, torch.nan, 0.9, 0.9]).repeat(1, 2, 20)
    current.requires_grad_()
    psi, grads = make_surrogate(name), []
    for back_end in ("cpu", "plain", "reference"):
        with kernels.use(back_end):
            grads.append(torch.autograd.grad(ops.lif(current, 0.3, surrogate=psi).sum(), current)[0])
    assert_close(grads[0], grads[2], equal_nan=True)
    assert_close(grads[1], grads[2], equal_nan=True)


@pytest.mark.parametrize("kind", ["sltt", "bptt", "sdn", "alif", "resonate", "sliding_psn", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_mode_equals_reverse_mode(kind, dtype):
    torch.manual_seed(0)
    neuron = make_neuron(kind, d_model=3).to(dtype)
    x, v, w = torch.randn(3, 2, 3, 40, dtype=dtype)
    leaf = x.clone().requires_grad_()
    s = neuron(leaf)
    (grad,) = torch.autograd.grad((s * w).sum(), leaf)
    value, tangent = torch.func.jvp(neuron, (x,), (v,))
    assert torch.equal(value, s.detach())
    assert_close((tangent * w).sum(), (grad * v).sum(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["sltt", "bptt", "sdn"])
@pytest.mark.parametrize("loss", [torch.sum, lambda s: (s * s).sum()])
def test_a_second_derivative_is_refused(kind, loss):
    x = torch.randn(2, 3, 40, requires_grad=True)
    (grad,) = torch.autograd.grad(loss(make_neuron(kind)(x)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


def test_the_reference_is_differentiated_twice():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    psi = make_surrogate("atan")
    (grad,) = torch.autograd.grad(spike(x, psi).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert_close(second, torch.autograd.grad(psi(x).sum(), x)[0])


@pytest.mark.parametrize("kind", ["sltt", "bptt", "sdn", "alif", "resonate", "sliding_psn", "gelu"])
@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_thresholds_not_above_0_are_refused(kind, threshold):
    neuron, v_th = make_neuron(kind, d_model=3), torch.tensor([1.0, threshold, 1.0])
    current = torch.randn(2, 3, 20)
    calls = [
        lambda: neuron(current, v_th),
        lambda: neuron.scan(current, None, v_th),
        lambda: neuron.step(current[..., 0], neuron.initial_state(2, 3), v_th),
    ]
    for back_end in ("auto", "plain", "reference"):
        for call in calls:
            with kernels.use(back_end), pytest.raises(UserError, match="above 0"):
                call()
