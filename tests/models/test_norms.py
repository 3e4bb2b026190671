"""Norms in the layout (B, H, L): same numbers as torch's own, padding left out on request."""

import pytest
import torch
from torch import nn

from models.spike.norms import BatchNorm, LayerNorm, make_norm
from sdn.errors import UserError


def _spread(norm):
    torch.manual_seed(0)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.normal_()
    return norm.double()


def test_layer_norm_is_over_channels_with_gradients():
    norm = _spread(LayerNorm(6))
    x = torch.randn(3, 6, 7, dtype=torch.float64, requires_grad=True)
    want = nn.functional.layer_norm(x.transpose(1, 2), (6,), norm.weight, norm.bias, norm.eps).transpose(1, 2)
    got = norm(x)
    torch.testing.assert_close(got, want)
    wrt, weight = (x, norm.weight, norm.bias), torch.randn_like(x)
    for a, b in zip(torch.autograd.grad(got, wrt, weight), torch.autograd.grad(want, wrt, weight), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(torch.stack([norm(x_t) for x_t in x.unbind(-1)], -1), got)


def test_batch_norm_without_a_mask_is_torchs_own_and_a_full_mask_changes_nothing():
    ours, torchs = _spread(BatchNorm(4)), _spread(nn.BatchNorm1d(4))
    x = torch.randn(3, 4, 10, dtype=torch.float64)
    want = torchs(x)
    torch.testing.assert_close(ours(x), want)
    masked = _spread(BatchNorm(4))
    torch.testing.assert_close(masked(x, torch.ones(3, 1, 10).double()), want)
    for name, buffer in torchs.named_buffers():
        torch.testing.assert_close(dict(masked.named_buffers())[name], buffer)


def test_batch_norm_statistics_leave_masked_samples_out():
    norm = _spread(BatchNorm(4))
    x = torch.randn(2, 4, 10, dtype=torch.float64)
    mask = (torch.arange(10) < torch.tensor([[10], [6]])).unsqueeze(1).double()
    flat = torch.cat((x[0], x[1, :, :6]), 1).unsqueeze(0)
    want = _spread(BatchNorm(4))(flat)
    got = norm(x, mask)
    torch.testing.assert_close(torch.cat((got[0], got[1, :, :6]), 1).unsqueeze(0), want)


def test_unknown_norm_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="batch, layer, none"):
        make_norm("instance", 4)
