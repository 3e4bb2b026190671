"""The neurons beside the leaky one against their equations written out, and the contract for a class of one's own."""

import copy
import io

import pytest
import torch
from torch.testing import assert_close

import sdn
from sdn.contract import Neuron, require
from sdn.errors import UserError
from sdn.kinds.alif import ALIF
from sdn.kinds.resonate import ResonateAndFire
from sdn.kinds.sliding_psn import SlidingPSN
from sdn.neurons import make_neuron
from sdn.surrogate import WIDTHS, make_surrogate, spike


def naive_alif(neuron, current):
    u = a = torch.zeros_like(current[..., 0])
    out = []
    for x in current.unbind(-1):
        u = neuron.tau * u + x
        s = spike(u - (1 + neuron.beta * a), neuron.surrogate)
        u, a = u - s.detach(), neuron.rho * a + s
        out.append(s)
    return torch.stack(out, -1)


def naive_resonate(neuron, current):
    d, omega = neuron.step_size, neuron.omega.abs()
    p = (torch.sqrt(1 - (d * omega) ** 2) - 1) / d
    z, q, out = torch.zeros_like(current[..., 0]) * 1j, torch.zeros_like(current[..., 0]), []
    for x in current.unbind(-1):
        b = p - neuron.damping.abs() - q
        z = z + d * (torch.complex(b, omega.expand_as(b)) * z + x)
        s = spike(z.real - 1 - q, neuron.surrogate)
        q = neuron.gamma * q + s if neuron.refractory else q
        out.append(s)
    return torch.stack(out, -1)


def naive_psn(neuron, current):
    H, k = current.shape[1], neuron.k
    weight, u = neuron.weight.expand(H, k), torch.zeros_like(current)
    for t in range(current.shape[-1]):
        for i in range(min(k, t + 1)):
            u[..., t] = u[..., t] + weight[:, k - 1 - i] * current[..., t - i]
    return spike(u - 1, neuron.surrogate)


CASES = {
    "alif": (ALIF, {}, naive_alif, 1.0),
    "alif fixed": (ALIF, {"learnable": False, "tau": 0.5, "rho": 0.9, "beta": 2.0}, naive_alif, 2.0),
    "resonate": (ResonateAndFire, {"damping": (0.5, 5.0)}, naive_resonate, 40.0),
    "resonate, no refractory": (ResonateAndFire, {"refractory": False}, naive_resonate, 20.0),
    "psn": (SlidingPSN, {"k": 5}, naive_psn, 1.0),
    "psn shared": (SlidingPSN, {"k": 1, "shared": True}, naive_psn, 1.5),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("surrogate", WIDTHS)
@pytest.mark.parametrize("shape", [(1, 4, 1), (2, 4, 60)])
def test_values_and_gradients_equal_the_equation(case, surrogate, shape):
    kind, options, naive, size = CASES[case]
    torch.manual_seed(0)
    neuron = kind(4, **options, surrogate=surrogate, width=0.7).double()
    current = (size * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    v_th = torch.tensor([0.8, 1.0, 1.2, 0.9], dtype=torch.float64)
    got, want = neuron(current, v_th), naive(neuron, current / v_th[:, None])
    assert torch.equal(got, want)
    assert shape[-1] == 1 or 0 < got.mean() < 1
    assert set(got.unique().tolist()) <= {0.0, 1.0}
    assert neuron.binary
    outgoing = torch.randn_like(got)
    wanted = [current, *(p for p in neuron.parameters() if p.requires_grad)]
    for a, b in zip(
        torch.autograd.grad(got, wanted, outgoing, allow_unused=True),
        torch.autograd.grad(want, wanted, outgoing, allow_unused=True),
        strict=True,
    ):
        assert (a is None or not a.any()) if b is None else True
        if a is not None and b is not None:
            assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", [*CASES, "gelu"])
def test_steps_and_pieces_equal_the_whole(case):
    torch.manual_seed(0)
    neuron = make_neuron("gelu") if case == "gelu" else CASES[case][0](4, **CASES[case][1])
    neuron, size = neuron.double(), 1.0 if case == "gelu" else CASES[case][3]
    current = size * torch.randn(3, 50, 4, dtype=torch.float64).transpose(1, 2)  # not contiguous
    whole = neuron(current)
    start = neuron.initial_state(3, 4, dtype=torch.float64)
    assert not any(x.any() for x in (start if isinstance(start, tuple) else (start,)))
    for size in (1, 17, 50):
        state, parts = start, []
        for piece in current.split(size, -1):
            s, state = neuron.scan(piece, state)
            parts.append(s)
        assert_close(torch.cat(parts, -1), whole)
    state, parts = start, []
    for i_t in current.unbind(-1):
        s, state = neuron.step(i_t, state)
        parts.append(s)
    assert_close(torch.stack(parts, -1), whole)
    empty, same = neuron.scan(current[..., :0], state)
    assert empty.shape == (3, 4, 0)
    for a, b in zip(same if isinstance(same, tuple) else (same,), state if isinstance(state, tuple) else (state,),
                    strict=True):  # fmt: skip
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["alif", "resonate", "sliding_psn", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types(name, dtype):
    neuron, current = make_neuron(name, d_model=3), (2 * torch.randn(2, 3, 20)).to(dtype).requires_grad_()
    s = neuron(current)
    assert s.dtype == dtype
    s.float().sum().backward()
    assert current.grad.dtype == dtype
    with pytest.raises(UserError, match="float type"):
        neuron(current.detach().int()) if name != "gelu" else neuron.check_current(current.int())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"_name_": "alif", "beta": 0}, "beta"),
        ({"_name_": "alif", "rho": 1.5}, "rho"),
        ({"_name_": "alif", "tau": 1.5}, "tau"),
        ({"_name_": "alif", "row": 0.5}, "did you mean 'rho'"),
        ({"_name_": "resonate", "omega": [5, 200]}, "omega"),
        ({"_name_": "resonate", "damping": [0, 1]}, "damping"),
        ({"_name_": "resonate", "gamma": 1}, "gamma"),
        ({"_name_": "resonate", "step_size": 0}, "step_size"),
        ({"_name_": "sliding_psn", "k": 0}, "whole number"),
        ({"_name_": "sliding_psn", "surrogate": "square"}, "unknown surrogate"),
        ({"_name_": "sltt", "gradient": "bptt"}, "no option 'gradient'"),
        ({"_name_": "sdn", "reset": "soft"}, "no option 'reset'"),
        ({"k": 3}, "_name_"),
        ({"_name_": 3}, "unknown neuron"),
        ({"_name_": "os.system"}, "standard library"),
        ({"_name_": "torch.nn.Linear"}, "not a subclass of sdn.contract.Neuron"),
        ({"_name_": "sdn.Neuron"}, "not a subclass"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        make_neuron(spec, d_model=3)


@pytest.mark.parametrize("option", [{"tau": 0.3}, {"u_r": 0.1}, {"surrogate": "atan"}, {"width": 0.3}])
@pytest.mark.parametrize("name", ["gelu", {"_name_": "sltt"}])
def test_options_that_would_be_lost_are_refused(option, name):
    with pytest.raises(UserError, match=f"{next(iter(option))} beside the neuron"):
        make_neuron(name, d_model=3, **option)


def test_mappings_build_the_leaky_neurons():
    neuron = make_neuron({"_name_": "bptt", "tau": 0.4, "learnable_tau": True, "surrogate": "atan"}, d_model=3)
    assert neuron.gradient == "bptt"
    assert neuron.surrogate == make_surrogate("atan")
    assert make_neuron({"_name_": "sdn", "width": 0.5}).surrogate.width == 0.5
    assert make_neuron({"_name_": "sdn.neurons.LIF", "gradient": "bptt"}).gradient == "bptt"


class Own(sdn.Neuron):
    """All that a stranger has to write."""

    binary = True

    def step(self, current, u, v_th=None):
        u = 0.5 * u + self.scaled(current, v_th)
        s = spike(u - 1)
        return s, u * (1 - s.detach())


def test_a_step_is_enough():
    own, known, v_th = Own(), make_neuron("bptt", tau=0.5), torch.tensor([0.7, 1.0, 1.3])
    current = torch.randn(2, 3, 40, requires_grad=True)
    assert torch.equal(own(current, v_th), known(current, v_th))
    a, b = (torch.autograd.grad(n(current, v_th).square().sum(), current)[0] for n in (own, known))
    assert_close(a, b)
    s, u = own.scan(current[..., :20])
    assert torch.equal(torch.cat([s, own.scan(current[..., 20:], u)[0]], -1), known(current))
    assert not s.requires_grad
    assert own(current[..., :0]).shape == (2, 3, 0)


def test_abilities():
    for ability, word in {"event_engine": "event engine", "onnx": "ONNX", "nir": "NIR"}.items():
        with pytest.raises(UserError, match=word):
            require(Own(), ability)
        require(make_neuron("bptt"), ability)
    with pytest.raises(UserError, match="sample by sample"):
        require(torch.nn.ReLU(), "streams")
    with pytest.raises(UserError, match="no leaky"):
        Own().constants()
    with pytest.raises(NotImplementedError, match="must define step"):
        Neuron()(torch.zeros(1, 2, 3))


@pytest.mark.parametrize("name", ["bptt", "alif", "resonate", "sliding_psn"])
def test_copies_keep_what_the_optimizer_is_told(name):
    neuron = make_neuron(name, d_model=3) if name != "bptt" else make_neuron(name, learnable_tau=True, d_model=3)
    learnt = {n for n, _ in neuron.named_parameters()}
    assert learnt
    assert learnt <= set(copy.deepcopy(neuron).optim_options())
    file = io.BytesIO()
    torch.save(neuron, file)
    file.seek(0)
    assert learnt <= set(torch.load(file, weights_only=False).optim_options())
