"""The compiled loops of neurons beside the leaky one against their steps in Python: values, states and gradients."""

import pytest
import torch
from torch.testing import assert_close

from sdn import kernels
from sdn.kinds import loops
from sdn.neurons import make_neuron
from sdn.surrogate import WIDTHS

pytest.importorskip("numba")
CASES = {
    "alif": ({"_name_": "alif", "tau": 0.8, "rho": 0.95}, 1.0),
    "resonate": ({"_name_": "resonate", "damping": (0.5, 5.0)}, 30.0),
    "plain resonator": ({"_name_": "resonate", "refractory": False}, 15.0),
}


def make(case: str, H: int, dtype: torch.dtype = torch.float64, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return make_neuron(CASES[case][0] | options, d_model=H).to(dtype)


def both(neuron, current, v_th=None):
    """Spikes, state and gradients of a pass by the loops and by the steps."""
    found = []
    for name in ("auto", "reference"):
        with kernels.use(name):
            assert loops.ready(current) == (name == "auto")
            x = current.detach().requires_grad_()
            s, state = neuron._unroll(x, None, v_th)
            weights = torch.linspace(-1, 2, s.numel(), dtype=torch.float64).view(s.shape).cos()
            wanted = [x, *neuron.parameters(), *([] if v_th is None else [v_th])]
            found.append((s, state, torch.autograd.grad((s * weights).sum(), wanted, materialize_grads=True)))
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 64), (2, 16, 131), (1, 48, 2), (9, 14, 70)])
def test_loops_equal_the_steps(case, shape):
    neuron, current = make(case, shape[1]), CASES[case][1] * torch.randn(shape, dtype=torch.float64)
    (s, state, grads), (truth, end, slopes) = both(neuron, current)
    assert torch.equal(s, truth)
    assert all(map(torch.equal, state, end))
    for a, b in zip(grads, slopes, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("surrogate", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_surrogates_types_and_thresholds(case, surrogate, dtype):
    neuron = make(case, 16, dtype, surrogate=surrogate, width=0.6)
    v_th = torch.linspace(0.5, 1.5, 16, dtype=dtype).requires_grad_()
    (s, state, grads), (truth, end, slopes) = both(neuron, CASES[case][1] * torch.randn(2, 16, 90, dtype=dtype), v_th)
    assert torch.equal(s, truth)
    assert s.any()
    assert s.dtype == dtype
    assert all(map(torch.equal, state, end))
    for a, b in zip(grads, slopes, strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b, rtol=0, atol=float(b.abs().max()) * (1e-5 if dtype == torch.float32 else 1e-12))


@pytest.mark.parametrize("case", CASES)
def test_any_layout_and_state(case):
    neuron, x = make(case, 32), CASES[case][1] * torch.randn(3, 40, 32, dtype=torch.float64)
    channels_last, time_last = x.transpose(1, 2), x.transpose(1, 2).contiguous()
    s = neuron(channels_last)
    assert s.transpose(1, 2).is_contiguous()
    assert neuron(time_last).is_contiguous()
    assert torch.equal(s, neuron(time_last))
    assert torch.equal(s[:, :, ::2], neuron(torch.cat([time_last, x.new_zeros(3, 32, 3)], -1))[:, :, :40:2])
    first, state = neuron.scan(channels_last[..., :17])
    assert torch.equal(torch.cat([first, neuron.scan(channels_last[..., 17:], state)[0]], -1), s)


@pytest.mark.parametrize("case", CASES)
def test_nasty_currents(case):
    neuron, current = make(case, 3, torch.float32), torch.zeros(2, 3, 70)
    current[0, 0], current[0, 1, 5], current[1, 2] = float("nan"), float("inf"), 1e30
    current[1, 0, 0] = 1  # exactly at the threshold of ALIF
    (s, state, grads), (truth, end, slopes) = both(neuron, current)
    assert torch.equal(s, truth)
    assert not s[0, 0].any()
    for a, b in zip(state, end, strict=True):
        assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    clean = torch.tensor([[False, False, True], [True, True, False]])
    assert_close(grads[0][clean], slopes[0][clean])


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_not_differentiated_again(case):
    neuron, x = make(case, 4), torch.randn(2, 4, 10, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad((neuron(x) * x).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="use\\('reference'\\)"):
        first.sum().backward()


def test_what_is_left_to_the_steps():
    neuron, x = make("alif", 4), torch.randn(2, 4, 10, dtype=torch.float64)
    assert loops.ready(x)
    assert not loops.ready(x[..., :0])
    assert not loops.ready(x.to("meta"))
    s, slope = torch.func.jvp(neuron, (x,), (torch.ones_like(x),))
    assert torch.equal(s, neuron(x))
    assert slope.any()
