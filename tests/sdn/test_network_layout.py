"""The channels-first form of the network is the chain of its own modules, values, gradients and statistics."""

import copy

import pytest
import torch
from torch.nn.functional import pad

from sdn.network import SDN


def by_modules(sdn, x):
    h = sdn.encoder(x.unsqueeze(1))
    for layer in sdn.layers:
        before = pad(h, (sdn.kernel_size - 1 + layer.shift, -layer.shift))
        a = torch.relu(layer.depthwise_norm(layer.depthwise(before)))
        h = torch.relu(layer.pointwise_norm(layer.pointwise(a)) + a)
    return sdn.decoder(h).squeeze(1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("d_model", "kernel_size", "n_layers"), [(8, 8, 1), (3, 5, 2), (4, 1, 3)])
def test_forward_is_the_chain_of_modules(d_model, kernel_size, n_layers, training):
    torch.manual_seed(0)
    fast = SDN(d_model, kernel_size, n_layers).double().train(training)
    plain = copy.deepcopy(fast)
    x = torch.randn(5, 17, dtype=torch.float64)
    got, want = fast(x), by_modules(plain, x)
    torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-10)
    for a, b in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
