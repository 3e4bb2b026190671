"""Every way to compute a neuron against the naive recurrence: spikes, gradients, odd inputs, registration."""

import itertools
import threading

import pytest
import torch
from torch.testing import assert_close

from sdn import kernels, ops
from sdn.errors import UserError
from sdn.kernels import cpu
from sdn.lif import lif_reference

FAST = ("cpu", "plain")
SHAPES = [(1, 1, 1), (1, 1, 700), (2, 3, 127), (3, 5, 257), (1, 70, 130), (2, 3, 1030)]


def _truth(current, tau, v_th, u_r, reset, gradient):
    """The reference in the type in which the recurrence runs, spikes in that of the input."""
    x = current.to(torch.float64 if current.dtype == torch.float64 else torch.float32)
    x = x if v_th is None else x / v_th.unsqueeze(-1)
    return lif_reference(x, tau, u_r, reset, gradient=gradient)[1].to(current.dtype)


def _neuron(H, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    tau, v_th, u_r = (torch.rand(H, generator=g, dtype=dtype) for _ in range(3))
    return (tau * 0.9 + 0.05).requires_grad_(), (v_th + 0.5).requires_grad_(), (u_r * 0.6 - 0.3).requires_grad_()


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_equals_reference(name, dtype, reset):
    """Spikes bit for bit, gradients of I, tau, v_th and u_r to rounding, sltt and bptt."""
    for shape, gradient in itertools.product(SHAPES, ("sltt", "bptt")):
        torch.manual_seed(1)
        tau, v_th, u_r = _neuron(shape[1], dtype)
        current = (torch.randn(shape) * 1.5).to(dtype).requires_grad_()
        outgoing = torch.randn(shape).to(dtype)
        wanted = [current, tau, v_th, u_r]
        s = _truth(current, tau, v_th, u_r, reset, gradient)
        truth = torch.autograd.grad(s, wanted, outgoing, allow_unused=True)
        with kernels.use(name):
            fast = ops.lif(current, tau, v_th, u_r, reset, gradient)
            got = torch.autograd.grad(fast, wanted, outgoing)
        assert fast.dtype == dtype
        assert torch.equal(fast, s), (shape, gradient)
        close = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-4}
        half = {"rtol": 2e-2, "atol": 2e-2} if dtype in (torch.bfloat16, torch.float16) else close
        assert_close(got[0], truth[0], **half)
        for mine, theirs in zip(got[1:], truth[1:], strict=True):
            assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs, **close)


def _drives(L):
    """Inputs on which a guess of the potential is wrong, or arithmetic is at its edge."""
    t = torch.arange(L, dtype=torch.float32)
    yield "at the threshold", torch.ones(1, 2, L)
    yield "at the threshold from below", torch.full((1, 2, L), 0.5)  # tau = 1/2: u' = 1 - 2^-n, then 1
    yield "just below", torch.full((1, 2, L), 1 - 2**-24)
    yield "constants", torch.linspace(0.3, 1.4, 16).view(1, 16, 1).expand(1, 16, L)
    yield "slow near the threshold", 0.9 + 0.15 * torch.sin(t / 200 + torch.arange(4).view(1, 4, 1))
    yield "huge", torch.randn(1, 2, L, generator=torch.Generator().manual_seed(0)) * 1e38
    yield "infinite", torch.where(t % 97 == 5, torch.inf, 0.4).expand(1, 2, L)
    yield "NaN", torch.where(t == 150, torch.nan, 0.7).expand(1, 2, L)
    yield "silence", torch.zeros(1, 2, L)
    yield "tiny", torch.full((1, 2, L), 1e-42)
    yield "a spike at every step", torch.full((1, 2, L), 3.0)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("tau", [0.125, 0.5, 0.99])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_nasty_inputs_in_stretches(monkeypatch, name, tau, reset):
    """Time is cut into stretches, and on most of these drives most of their guesses are wrong."""
    monkeypatch.setattr(cpu, "stretches", lambda *_: (3, 2))
    for what, current in _drives(900):
        _, s, u = lif_reference(current, tau, 0.0, reset)
        with kernels.use(name):
            fast, end = ops.lif_scan(current, None, tau, None, 0.0, reset)
        assert torch.equal(fast, s), what
        assert_close(end, u, rtol=0, atol=0, equal_nan=True, msg=what)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_bptt_of_long_memory(name, reset):
    """tau = 0.99 and rare spikes: gradients reach across many blocks."""
    current = 0.02 * torch.randn(1, 3, 900, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.012
    current.requires_grad_()
    outgoing = torch.linspace(-1, 1, 900, dtype=torch.float64).expand(1, 3, 900)
    s = lif_reference(current, 0.99, 0.0, reset)[1]
    (truth,) = torch.autograd.grad(s, current, outgoing)
    with kernels.use(name):
        (got,) = torch.autograd.grad(ops.lif(current, 0.99, None, 0.0, reset, "bptt"), current, outgoing)
    assert_close(got, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("shape", [(2, 3, 0), (0, 3, 5), (2, 0, 5), (0, 3, 0)])
def test_empty(name, shape):
    current = torch.zeros(shape, requires_grad=True)
    tau = torch.full((shape[1],), 0.2, requires_grad=True)
    with kernels.use(name):
        s = ops.lif(current, tau, gradient="bptt")
        s.sum().backward()
    assert s.shape == current.grad.shape == shape
    assert torch.equal(tau.grad, torch.zeros(shape[1]))


@pytest.mark.parametrize("name", FAST)
def test_any_layout(name):
    """Transposed, expanded and sliced currents; scalar, shared and per-channel constants; two and four dimensions."""
    base = torch.randn(40, 3, 6)
    for current in (base.permute(2, 1, 0), base[:1].expand(4, 3, 6), base[::3, :, 1::2], base[0], base[None]):
        H = current.shape[-2]
        for tau, v_th in (
            (0.3, None),
            (torch.tensor(0.3), torch.tensor([1.2])),
            (torch.full((H,), 0.3), torch.ones(H)),
        ):
            s = _truth(current, tau, v_th, 0.0, "hard", "sltt")
            with kernels.use(name):
                assert torch.equal(ops.lif(current, tau, v_th), s)


@pytest.mark.parametrize("name", FAST)
def test_scan_in_pieces_is_scan_in_one(name):
    current, u_r = torch.randn(2, 5, 400), torch.full((5,), 0.1)
    with kernels.use(name):
        whole, end = ops.lif_scan(current, None, 0.6, None, u_r)
        a, u = ops.lif_scan(current[..., :133], None, 0.6, None, u_r)
        b, u = ops.lif_scan(current[..., 133:], u, 0.6, None, u_r)
    assert torch.equal(torch.cat([a, b], -1), whole)
    assert torch.equal(u, end)


def test_wrong_arguments_are_explained():
    current = torch.zeros(2, 3, 4)
    for message, arguments in {
        "unknown reset": {"reset": "none"},
        "unknown gradient": {"gradient": "rtrl"},
        "per channel": {"v_th": torch.ones(2)},
    }.items():
        with pytest.raises(UserError, match=message):
            ops.lif(current, **{"tau": 0.2, **arguments})
    with pytest.raises(UserError, match="float type"):
        ops.lif(current.long(), 0.2)
    with pytest.raises(ValueError, match="unknown kernels"), kernels.use("fastest"):
        pass


@pytest.mark.parametrize("name", FAST)
def test_opcheck(name):
    current = torch.randn(2, 3, 140, requires_grad=True)
    tau, v_th, u_r = _neuron(3, torch.float32)
    with kernels.use(name):
        torch.library.opcheck(torch.ops.sdn.lif, (current, tau, v_th, u_r, None, False, True))
        torch.library.opcheck(
            torch.ops.sdn.lif, (current.detach(), tau.detach(), None, u_r.detach(), None, True, False)
        )


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["sltt", "bptt"])
def test_compile_in_one_graph(gradient):
    tau, v_th, u_r = _neuron(4, torch.float32)
    current = torch.randn(2, 4, 200, requires_grad=True)

    def loss(current):
        return (ops.lif(2 * current, tau, v_th, u_r, "hard", gradient) * torch.arange(200)).sum()

    wanted = [current, tau, v_th]
    truth = torch.autograd.grad(loss(current), wanted)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(current), wanted)
    assert_close(got, truth)


def test_traced_in_one_graph():
    """What test_compile_in_one_graph checks, without a compiler."""
    tau, v_th, u_r = _neuron(4, torch.float32)
    current = torch.randn(2, 4, 200, requires_grad=True)

    def loss(current):
        return (ops.lif(2 * current, tau, v_th, u_r, "hard", "bptt") * torch.arange(200)).sum()

    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(current), [current, tau, v_th])
    assert_close(got, torch.autograd.grad(loss(current), [current, tau, v_th]))


def test_autocast_keeps_the_type_of_the_current():
    current = torch.randn(2, 3, 50, requires_grad=True)
    s = ops.lif(current, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.lif(current, 0.2), s)
        assert ops.lif(current.bfloat16(), 0.2).dtype == torch.bfloat16
    s.sum().backward()
    assert current.grad.dtype == torch.float32


def test_only_seams_are_kept_for_the_backward_pass():
    """Beside the caller's own tensor and the neuron's constants: 1/128 of its size."""
    current = torch.randn(2, 8, 1024, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ops.lif(current, 0.2, gradient="bptt")
    new = sum(x.numel() for x in kept if x.data_ptr() != current.data_ptr())
    assert new <= current.numel() // 128 + 3 * 8


def test_from_many_threads():
    """Kernels may be entered from several Python threads at once."""
    inputs = [torch.randn(4, 40, 300) for _ in range(6)]
    truth = [ops.lif(x, 0.3) for x in inputs]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(20) if not torch.equal(ops.lif(inputs[i], 0.3), truth[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
