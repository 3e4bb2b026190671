"""The reduction is exact: same function in float64, every step of it."""

import pytest
import torch

from sdn.errors import UserError
from sdn.fitting.reduce import fold_batch_norm, fuse_encoder, reduce
from sdn.network import SDN


@pytest.fixture(params=[{}, {"n_layers": 3}, {"d_model": 5, "kernel_size": 3, "n_layers": 2}], ids=str)
def fitted(request):
    """A network in float64 whose batch norms have seen data and whose gains differ, one negative."""
    torch.manual_seed(1)
    sdn = SDN(**request.param).double()
    for norm in sdn.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(norm.weight, 1, 0.5)
            torch.nn.init.normal_(norm.bias, 0, 0.5)
            norm.weight.data[0] = -0.7
    with torch.no_grad():
        for _ in range(30):
            sdn(3 * torch.randn(16, 64, dtype=torch.float64) + 1)
    return sdn.eval()


def test_equal_in_float64(fitted):
    x = 2 * torch.randn(40, 200, dtype=torch.float64)
    assert torch.allclose(reduce(fitted, 0.2, dtype=torch.float64)(x), fitted(x), rtol=1e-12, atol=1e-12)


def test_close_in_float32(fitted):
    x = torch.randn(40, 200)
    torch.testing.assert_close(reduce(fitted, 0.2)(x).double(), fitted(x.double()), rtol=1e-4, atol=1e-5)


def test_keeps_tau_facts_and_sizes(fitted):
    reduced = reduce(fitted, 0.2, {"epochs": 3})
    assert (reduced.tau, reduced.meta) == (0.2, {"epochs": 3})
    assert (reduced.d_model, reduced.kernel_size) == (fitted.d_model, fitted.kernel_size)
    assert reduced.n_layers == fitted.n_layers
    assert reduced.out_weight.dtype == torch.float32


def test_leaves_the_network_alone_and_shares_nothing(fitted):
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    reduced = reduce(fitted, 0.2, dtype=torch.float64)
    for buffer in reduced.buffers():
        buffer.zero_()
    assert all(torch.equal(value, before[name]) for name, value in fitted.state_dict().items())


def test_ignores_training_mode(fitted):
    expected = reduce(fitted, 0.2, dtype=torch.float64)
    got = reduce(fitted.train(), 0.2, dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(expected.buffers(), got.buffers(), strict=True))


def test_encoder_step(fitted):
    x = torch.randn(3, 1, 20, dtype=torch.float64)
    conv = fitted.layers[0].depthwise
    fused = torch.nn.functional.conv1d(x, fuse_encoder(fitted.encoder, conv)[:, None], conv.bias)
    torch.testing.assert_close(fused, conv(fitted.encoder(x)))


def test_batch_norm_step(fitted):
    conv, norm = fitted.layers[0].pointwise, fitted.layers[0].pointwise_norm
    a = torch.randn(3, fitted.d_model, 20, dtype=torch.float64)
    weight, bias = fold_batch_norm(conv.weight[..., 0], conv.bias, norm)
    torch.testing.assert_close(torch.nn.functional.conv1d(a, weight[..., None], bias), norm(conv(a)))


def test_diverged_weights_are_refused():
    sdn = SDN()
    sdn.decoder.weight.data[0] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        reduce(sdn, 0.2)
