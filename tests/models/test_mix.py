"""Mix, gate and channel dropout against their plain composition."""

import pytest
import torch
from torch.nn import functional as F

from models.spike import mix as module
from models.spike.mix import Mix


@pytest.mark.parametrize("room", [1, 100, 1 << 20])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_equals_the_plain_composition_with_gradients(room, dropout, monkeypatch):
    monkeypatch.setattr(module, "_CPU_PIECE", room)
    torch.manual_seed(0)
    mix = Mix(6, dropout).double()
    s = (torch.rand(5, 6, 9, dtype=torch.float64) < 0.3).double().requires_grad_()
    masks = [torch.tensor(1.0)] * 2
    if dropout:
        torch.manual_seed(1)
        masks = [mix._channel_mask(s).unsqueeze(-1) for _ in range(2)]
        assert set(masks[0].unique().tolist()) == {0.0, 2.0}
    torch.manual_seed(1)
    got = mix(s)
    want = masks[1] * F.glu(F.conv1d(masks[0] * s, mix.weight, mix.bias), 1)
    torch.testing.assert_close(got, want)
    wrt, weight = (s, mix.weight, mix.bias), torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(got, wrt, weight), torch.autograd.grad(want, wrt, weight), strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_only_in_training_and_expectation_is_kept():
    torch.manual_seed(0)
    mix = Mix(50, 0.2)
    masks = torch.stack([mix._channel_mask(torch.zeros(8, 50, 3)) for _ in range(50)])
    assert abs(masks.mean() - 1) < 0.02
    assert masks.max() == 1.25
    s = torch.ones(2, 50, 4)
    assert torch.equal(mix.eval()(s), mix(s))
    assert not torch.equal(mix.train()(s), mix(s))


def test_autocast_runs_the_product_in_bfloat16():
    mix, s = Mix(16), (torch.rand(2, 16, 8) < 0.3).float().requires_grad_()
    full = mix(s)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = mix(s)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), full, rtol=0.05, atol=0.02)
    low.float().sum().backward()
    assert mix.weight.grad.dtype == torch.float32
    assert s.grad.dtype == torch.float32


def test_step_is_one_column():
    mix, s = Mix(6).double(), (torch.rand(2, 6, 5) < 0.5).double()
    torch.testing.assert_close(torch.stack([mix.step(x) for x in s.unbind(-1)], -1), mix(s))
