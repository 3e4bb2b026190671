"""The surrogate network: its size, what each output may see, and the shapes and types it takes."""

import pytest
import torch

from sdn.errors import UserError
from sdn.network import SDN, ReducedSDN, reduced_shapes


def trained(seed=0, **sizes):
    """An SDN with batch norm statistics and gains as after training, in evaluation mode."""
    torch.manual_seed(seed)
    sdn = SDN(**sizes)
    for norm in sdn.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(norm.weight, 1, 0.3)
            torch.nn.init.normal_(norm.bias, 0, 0.3)
    with torch.no_grad():
        for _ in range(30):
            sdn(2 * torch.randn(16, 64) + 0.5)
    return sdn.eval()


def reduced(seed=0, dtype=torch.float32, **sizes):
    generator = torch.Generator().manual_seed(seed)
    shapes = reduced_shapes(**sizes)
    return ReducedSDN({n: torch.randn(s, generator=generator, dtype=dtype) for n, s in shapes.items()}, 0.125)


def naive(sdn, x):
    """mem of one sequence by the equations in :class:`ReducedSDN`'s docstring, step by step."""
    k, weights = sdn.kernel_size, list(sdn.layer_tensors())
    history = [torch.cat([x.new_zeros(k), x])[:-1].expand(sdn.d_model, -1)]
    for i, (conv, conv_bias, mix, mix_bias) in enumerate(weights):
        h = history[-1] if i == 0 else torch.cat([x.new_zeros(sdn.d_model, k - 1), history[-1]], 1)
        steps = []
        for t in range(len(x)):
            a = torch.relu((conv * h[:, t : t + k]).sum(1) + conv_bias)
            steps.append(torch.relu(mix @ a + mix_bias))
        history.append(torch.stack(steps, 1))
    return sdn.out_weight @ history[-1] + sdn.out_bias


def test_sizes_of_the_paper():
    assert sum(p.numel() for p in SDN().parameters()) == 193
    assert reduced().n_weights() == 153


@pytest.mark.parametrize("sizes", [{}, {"n_layers": 3}, {"d_model": 5, "kernel_size": 3}, {"kernel_size": 1}], ids=str)
def test_reduced_equals_naive_equations(sizes):
    sdn = reduced(dtype=torch.float64, **sizes)
    x = torch.randn(20, dtype=torch.float64)
    torch.testing.assert_close(sdn(x), naive(sdn, x))


@pytest.mark.parametrize("make", [trained, reduced])
@pytest.mark.parametrize("sizes", [{}, {"n_layers": 2, "kernel_size": 4}, {"kernel_size": 1}], ids=str)
def test_mem_sees_only_the_inputs_before_it(make, sizes):
    sdn = make(**sizes).double()
    x = torch.randn(30, dtype=torch.float64, requires_grad=True)
    k, n = sdn.kernel_size, sdn.n_layers
    field = k + (n - 1) * (k - 1)
    for t in (0, 1, 17):
        (grad,) = torch.autograd.grad(sdn(x)[t], x, allow_unused=True)
        seen = grad.nonzero().flatten().tolist()
        assert all(max(0, t - field) <= s < t for s in seen)
    changed = x.detach().clone()
    changed[17:] += 5
    assert torch.equal(sdn(changed)[:18], sdn(x)[:18])


@pytest.mark.parametrize("make", [trained, reduced])
def test_first_mem_comes_from_the_biases_alone(make):
    sdn = make()
    first = sdn(torch.randn(5, 9))[:, 0]
    torch.testing.assert_close(first, first[:1].expand(5))


def test_receptive_field():
    assert [reduced(kernel_size=8, n_layers=n).receptive_field for n in (1, 2, 3)] == [8, 15, 22]


@pytest.mark.parametrize("make", [trained, reduced])
@pytest.mark.parametrize(
    "shape", [(1, 1, 7), (3, 7), (7,), (2, 3, 4, 7), (1,), (2, 1), (1, 1, 1), (0, 7), (2, 0)], ids=str
)
def test_shapes_are_kept(make, shape):
    sdn, x = make(), torch.randn(shape)
    mem = sdn(x)
    assert mem.shape == shape
    if x.numel():
        torch.testing.assert_close(mem.reshape(-1, shape[-1]), sdn(x.reshape(-1, shape[-1])))


def test_reduced_is_frozen_and_moves():
    sdn = reduced()
    assert not list(sdn.parameters())
    assert set(sdn.state_dict()) == set(reduced_shapes())
    owner = torch.nn.ModuleDict({"neuron": sdn}).double()
    assert owner["neuron"].conv_weight.dtype == torch.float64
    assert not sdn(torch.randn(2, 9)).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_float_types_are_computed_in_float32(dtype):
    sdn, x = reduced(), torch.randn(4, 50).to(dtype)
    mem = sdn(x)
    assert mem.dtype == dtype
    torch.testing.assert_close(mem, sdn(x.float()).to(dtype))


def test_whole_numbers_are_taken_as_currents():
    sdn, x = reduced(), torch.randint(-2, 3, (4, 50))
    torch.testing.assert_close(sdn(x), sdn(x.float()))


def test_autocast_does_not_touch_it():
    sdn, x = reduced(), torch.randn(4, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sdn(x), sdn(x))
        inside = sdn(x)
    assert torch.equal(inside, sdn(x))


def test_strided_input_and_blocks():
    sdn, x = reduced(), torch.randn(70, 2000)  # more than one block
    whole = sdn(x)
    torch.testing.assert_close(sdn(x.T.contiguous().T), whole)
    torch.testing.assert_close(torch.stack([sdn(row) for row in x]), whole)


def test_gradient_reaches_the_current():
    sdn = reduced(dtype=torch.float64, d_model=3, kernel_size=2)
    assert torch.autograd.gradcheck(sdn, torch.randn(2, 5, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("sizes", [{"d_model": 0}, {"kernel_size": -1}, {"n_layers": 1.5}], ids=str)
def test_sizes_must_be_whole_and_positive(sizes):
    with pytest.raises(UserError, match=f"{next(iter(sizes))}.*whole number"):
        SDN(**sizes)


def spoil(change):
    tensors = {name: torch.zeros(shape) for name, shape in reduced_shapes().items()}
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv_weight"), "conv_weight"),
        (lambda t: t.pop("out_bias"), "out_bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update(conv_weight_3=torch.zeros(8, 8)), "conv_bias_2"),
        (lambda t: t.update(mix_weight=torch.zeros(8, 7)), r"shape \(8, 8\), not \(8, 7\)"),
        (lambda t: t.update(mix_bias=torch.zeros(8, dtype=torch.float64)), "one float type"),
        (lambda t: t.update(mix_bias=torch.full((8,), torch.nan)), "NaN"),
    ],
    ids=["foreign", "missing", "unknown", "gap", "shape", "dtype", "nan"],
)
def test_wrong_tensors_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        ReducedSDN(spoil(change), 0.125)


def test_tau_is_checked():
    with pytest.raises(UserError, match="tau"):
        ReducedSDN(spoil(lambda t: None), 1.0)
