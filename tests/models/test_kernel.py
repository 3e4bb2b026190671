"""The factored sum over modes against the equation as written: values, every gradient, accuracy, memory."""

import pytest
import torch

from models.spike.kernel import mode_project, mode_sum, mode_sum_direct
from models.spike.s4d import S4DKernel, S4DKernelB
from sdn.errors import UserError

KERNELS = [S4DKernel, S4DKernelB]


def _system(make, H=5, d_state=8, directions=2, **options):
    torch.manual_seed(0)
    kernel = make(H, d_state, directions, **options).double()
    for parameter in kernel.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return kernel


def _direct(kernel, length, rate=1.0):
    dtA, B_bar, C = kernel.discretise(rate)
    return mode_sum_direct(C * B_bar, dtA, length)


@pytest.mark.parametrize("make", KERNELS)
@pytest.mark.parametrize("length", [1, 2, 3, 16, 31, 100, 784, 1000, 1024])
def test_values_and_all_gradients_equal_the_direct_form(make, length):
    kernel = _system(make)
    weight = torch.randn(2, 5, length, dtype=torch.float64)
    names, parameters = zip(*kernel.named_parameters(), strict=True)
    fast, slow = kernel(length), _direct(kernel, length)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    grads = torch.autograd.grad(fast, parameters, weight)
    for name, got, want in zip(names, grads, torch.autograd.grad(slow, parameters, weight), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()), msg=name)


@pytest.mark.parametrize("directions", [1, 2])
def test_gradients_against_finite_differences(directions):
    kernel = _system(S4DKernelB, H=2, d_state=4, directions=directions)
    dtA, B_bar, C = (x.detach() for x in kernel.discretise())
    coef, dtA = (C * B_bar).requires_grad_(), dtA.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: mode_sum(a, b, 11), (coef, dtA))


@pytest.mark.parametrize("make", KERNELS)
def test_zero_order_hold_is_the_integral_of_the_continuous_system(make):
    kernel = _system(make, directions=1)
    dt, A, B, C = kernel._continuous()
    B = torch.ones_like(A) if B is None else B
    # h(dt) from h = 0 under a constant input of 1, in many small Euler-midpoint steps.
    h, steps = torch.zeros_like(A), 2000
    for _ in range(steps):
        middle = h + dt / steps / 2 * (A * h + B)
        h = h + dt / steps * (A * middle + B)
    torch.testing.assert_close(kernel.discretise().B_bar, h, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(kernel(1)[0, :, 0], 2 * (C[0] * h).sum(-1).real, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", KERNELS)
@pytest.mark.parametrize(("length", "dt_min"), [(1000, 1e-3), (16384, 1e-4)])
def test_float32_is_no_less_accurate_than_the_direct_form(make, length, dt_min):
    torch.manual_seed(1)
    kernel = make(8, 64, 1, dt_min=dt_min)
    with torch.no_grad():
        dtA, B_bar, C = kernel.discretise()
        coef = C * B_bar
        truth = mode_sum_direct(coef.to(torch.complex128), dtA.to(torch.complex128), length)
        fast, slow = (form(coef, dtA, length) for form in (mode_sum, mode_sum_direct))
    error_fast, error_slow = ((x - truth).norm() / truth.norm() for x in (fast, slow))
    assert error_fast <= 1.1 * error_slow + 1e-7
    assert error_fast < 1e-4


def test_small_steps_keep_their_digits():
    kernel = S4DKernel(4, 8, 1, dt_min=1e-6, dt_max=1e-6)
    single = kernel.discretise().B_bar
    torch.testing.assert_close(single.to(torch.complex128), kernel.double().discretise().B_bar, rtol=1e-6, atol=0)


@pytest.mark.parametrize("make", KERNELS)
def test_rate_resamples_the_kernel(make):
    kernel = _system(make)
    dtA = kernel.discretise().dtA
    torch.testing.assert_close(kernel.discretise(2.0).dtA, 2 * dtA)
    torch.testing.assert_close(kernel(50, rate=2.0), _direct(kernel, 50, rate=2.0), rtol=1e-10, atol=1e-12)


def test_scale_multiplies_the_kernel():
    kernel, scale = _system(S4DKernel), torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(kernel(40, scale=scale), kernel(40) * scale[:, None])
    torch.testing.assert_close(kernel(40, scale=scale[:1]), kernel(40) * scale[0])


@pytest.mark.parametrize("length", [1, 7, 64, 100])
def test_projection_is_the_sum_it_says(length):
    torch.manual_seed(0)
    dtA = _system(S4DKernel).discretise().dtA.detach()
    x = torch.randn(3, 5, length, dtype=torch.float64)
    lags = torch.arange(length - 1, -1, -1)
    want = torch.einsum("bhl,hnl->bhn", x.to(dtA.dtype), torch.exp(dtA[..., None] * lags))
    torch.testing.assert_close(mode_project(x, dtA), want)


def test_half_precision_parameters_still_give_a_float32_kernel():
    kernel = S4DKernel(4, 8).bfloat16()
    assert kernel(20).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = S4DKernel(4, 8)
        assert torch.equal(full(20), full.forward(20))
        assert full(20).dtype == torch.float32


def test_learning_rates_are_those_of_the_released_forms():
    plain = {name: getattr(p, "_optim", None) for name, p in S4DKernel(4, 8, lr=1e-3).named_parameters()}
    own = {"lr": 1e-3, "weight_decay": 0.0}
    assert plain == {"log_dt": own, "log_A_real": own, "A_imag": own, "C": None}
    with_b = {name: getattr(p, "_optim", None) for name, p in S4DKernelB(4, 8, lr=1e-3).named_parameters()}
    assert with_b == {"inv_dt": own, "A_real": own, "A_imag": own, "B": own, "C": {"lr": 1e-3}}


@pytest.mark.parametrize("make", KERNELS)
def test_lr_null_follows_the_optimizer_and_lr_zero_freezes(make):
    free = dict(make(4, 8, lr=None).named_parameters())
    assert free["A_imag"]._optim == {"weight_decay": 0.0}
    frozen = make(4, 8, lr=0.0)
    assert "A_imag" in dict(frozen.named_buffers())
    assert set(dict(frozen.named_parameters())) == ({"C"} if make is S4DKernel else set())
    frozen(10)


def test_initialisation_is_s4d_lin():
    kernel = S4DKernel(1000, 8, dt_min=1e-3, dt_max=0.1)
    dt, A, _, C = kernel._continuous()
    torch.testing.assert_close(A[0], torch.complex(torch.full((4,), -0.5), torch.pi * torch.arange(4)))
    assert dt.min() >= 1e-3
    assert dt.max() <= 0.1
    assert abs(dt.log().mean() - torch.tensor([1e-3, 0.1]).log().mean()) < 0.2
    assert abs(C.abs().square().mean() - 1) < 0.1
    _, A, B, _ = S4DKernelB(3, 8)._continuous()
    torch.testing.assert_close(
        A.conj(), torch.complex(torch.full((3, 4), -0.5), torch.pi * torch.arange(4).repeat(3, 1)), atol=1e-4, rtol=0
    )
    assert (B == 1).all()


@pytest.mark.parametrize(
    "options", [{"d_state": 7}, {"d_state": 0}, {"dt_min": 0.0}, {"dt_min": 0.2}, {"lr": -1.0}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError):
        S4DKernel(**{"d_model": 4, **options})
