"""The convolution against its double sum, and its gradients."""

import pytest
import torch

from models.spike import fftconv as module
from models.spike.fftconv import fft_size, fftconv


def _double_sum(u, k, D):
    L = u.shape[-1]
    y = D[:, None] * u
    out = [y[..., t] + sum(k[0, :, t - s] * u[..., s] for s in range(t + 1)) for t in range(L)]
    if k.shape[0] == 2:
        out = [o + sum(k[1, :, s - t - 1] * u[..., s] for s in range(t + 1, L)) for t, o in enumerate(out)]
    return torch.stack(out, -1)


def _case(directions, length, B=3, H=4):
    torch.manual_seed(0)
    shapes = ((B, H, length), (directions, H, length), (H,))
    return tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 49])
def test_equals_the_double_sum_with_gradients(directions, length):
    inputs = _case(directions, length)
    fast, slow = fftconv(*inputs), _double_sum(*inputs)
    torch.testing.assert_close(fast, slow)
    weight = torch.randn_like(slow)
    for got, want in zip(
        torch.autograd.grad(fast, inputs, weight), torch.autograd.grad(slow, inputs, weight), strict=True
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("room", [1, 64, 300])
def test_pieces_do_not_change_the_result(room, monkeypatch):
    inputs = _case(2, 20)
    whole = fftconv(*inputs)
    grads = torch.autograd.grad(whole.square().sum(), inputs)
    monkeypatch.setattr(module, "_CPU_PIECE", room)
    pieces = fftconv(*inputs)
    torch.testing.assert_close(pieces, whole)
    for got, want in zip(torch.autograd.grad(pieces.square().sum(), inputs), grads, strict=True):
        torch.testing.assert_close(got, want)


def test_bidirectional_kernel_follows_s4():
    u, k, _ = (x.detach() for x in _case(2, 30))
    L = 30
    pad = torch.nn.functional.pad
    circular = pad(k[0], (0, L)) + pad(k[1].flip(-1), (L, 0))
    want = torch.fft.irfft(torch.fft.rfft(u, 2 * L) * torch.fft.rfft(circular), 2 * L)[..., :L]
    torch.testing.assert_close(fftconv(u, k), want)


def test_only_wanted_gradients():
    u, k, D = _case(1, 9)
    assert torch.autograd.grad(fftconv(u, k.detach(), D.detach()).sum(), u)[0].shape == u.shape
    assert torch.autograd.grad(fftconv(u.detach(), k, None).sum(), k)[0].shape == k.shape
    assert torch.autograd.grad(fftconv(u.detach(), k.detach(), D).sum(), D)[0].shape == D.shape


def test_transposed_input_and_low_precision_input():
    u, k, D = (x.detach() for x in _case(2, 12))
    turned = u.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(fftconv(turned, k, D), fftconv(u, k, D))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = fftconv(u.bfloat16(), k.float(), D.float())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, fftconv(u.bfloat16().float(), k.float(), D.float()))


def test_sizes_are_even_smooth_and_enough():
    for length in (*range(1, 300), 784, 1000, 1024, 4000, 16000, 16384):
        n = fft_size(length)
        assert n >= 2 * length - 1
        assert n % 2 == 0
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        assert n == 1
    assert fft_size(1024) == 2048
    assert fft_size(1000) == 2000
    assert fft_size(784) == 1600
