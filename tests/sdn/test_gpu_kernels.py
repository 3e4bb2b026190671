"""The Triton kernels against the naive recurrence and the eager reduced network.

``pytest -m gpu`` runs every test of this file on the GPU. Without one, ``test_in_the_interpreter`` runs those that are
not for a GPU only on the CPU, in Triton's interpreter and in a process of its own: the interpreter has to be chosen
before Triton is imported, and would replace Triton for every other test of this process (``torch.compile`` needs it).
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from sdn import ops
from sdn.kernels import use
from sdn.lif import lif_reference
from sdn.network import ReducedSDN, reduced_shapes
from sdn.surrogate import TRIANGLE, WIDTHS, make_surrogate

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
SEAM = 32


def on_device(test):
    """A test for the interpreter's process and for a GPU."""
    return test if INTERPRETED else gpu_only(test)


def gpu_only(test):
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")(test))


@pytest.fixture
def kernels(monkeypatch):
    """The module, with seams and chunks so short that small tensors have several."""
    pytest.importorskip("triton")
    module = importlib.import_module("sdn.kernels.gpu")
    for name, value in {"SEAM": SEAM, "EARLY": 32, "CHUNK": SEAM}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sdn.kernels.SEAM", SEAM)
    with use("triton"):
        yield module


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
@pytest.mark.skipif(torch.cuda.is_available(), reason="pytest -m gpu runs them natively")
def test_in_the_interpreter():
    pytest.importorskip("triton", minversion="3.9", reason="the interpreter of older ones fails under NumPy 2.4")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert " passed" in done.stdout


def real(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def current(B: int, H: int, L: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Noise around a drive that differs from row to row, from silent to always firing."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(B, H, L, generator=generator, dtype=torch.float64)
    drive = torch.linspace(0.1, 1.2, B * H, dtype=torch.float64).view(B, H, 1)
    return (drive + 0.5 * noise).to(dtype)


def neuron(H: int, dtype: torch.dtype = torch.float32, scaled: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
    tau, v_th = torch.linspace(0.1, 0.9, H).to(real(dtype)), torch.linspace(0.6, 1.7, H).to(real(dtype))
    return tau, v_th if scaled else None, torch.linspace(-0.3, 0.3, H).to(real(dtype))


def to_device(*tensors: Tensor | None) -> list[Tensor | None]:
    return [t if t is None else t.to(DEVICE) for t in tensors]


def rows_that_differ(s: Tensor, reference: Tensor, potential: Tensor) -> Tensor:
    """Rows ``(R,)`` whose spikes differ; each may do so only from a step on where u' is 1 but for rounding."""
    different = s != reference
    rows = different.any(-1)
    first = different.int().argmax(-1, keepdim=True)
    distance = (potential.gather(-1, first) - 1).abs().squeeze(-1)[rows]
    assert (distance <= 4 * torch.finfo(potential.dtype).eps).all(), f"differs at distances {distance}"
    assert rows.sum() <= 0.01 * rows.numel(), f"{int(rows.sum())} of {rows.numel()} rows differ"
    return rows


def check_forward(kernels, I, tau, v_th, u_r, soft=False, u0=None, chunk=None):
    """Spikes, last potential and seams against the naive recurrence; returns the seams, on the device."""
    s, u, seams = kernels.lif_forward(
        *to_device(I.flatten(0, 1), tau, v_th, u_r), soft, None if u0 is None else u0.flatten().to(DEVICE), chunk
    )
    u0 = torch.zeros(I.shape[:2], dtype=tau.dtype) if u0 is None else u0
    x = I.to(tau.dtype) if v_th is None else I.to(tau.dtype) / v_th[:, None]
    mem, reference, last = lif_reference(x, tau, u_r, "soft" if soft else "hard", u0)
    assert s.dtype == I.dtype
    assert u.dtype == seams.dtype == tau.dtype
    rows = rows_that_differ(s.cpu(), reference.flatten(0, 1), (mem + x).flatten(0, 1))
    torch.testing.assert_close(u.cpu()[~rows], last.flatten()[~rows], rtol=0, atol=0, equal_nan=True)
    for i in range(seams.shape[1]):
        before = lif_reference(x[..., : i * kernels.SEAM], tau, u_r, "soft" if soft else "hard", u0)[2]
        torch.testing.assert_close(seams.cpu()[~rows, i], before.flatten()[~rows], rtol=0, atol=0, equal_nan=True)
    return seams


def check_backward(kernels, I, tau, v_th, u_r, soft, through_time, seams, chunk=None, sums=True, surrogate=TRIANGLE):
    B, H = I.shape[:2]
    grad = torch.randn(I.shape, generator=torch.Generator().manual_seed(1)).to(I.dtype)
    leaves = [t.clone().requires_grad_() for t in (I.to(tau.dtype), tau, torch.ones(H) if v_th is None else v_th, u_r)]
    x = leaves[0] / leaves[2].to(tau.dtype)[:, None]
    gradient = "bptt" if through_time else "sltt"
    s = lif_reference(x, leaves[1], leaves[3], "soft" if soft else "hard", None, gradient, surrogate)[1]
    s.backward(grad.to(tau.dtype))
    dI, got = kernels.lif_backward(
        *to_device(grad.flatten(0, 1), I.flatten(0, 1), seams, tau, v_th, u_r),
        *(soft, through_time, sums, chunk, surrogate),
    )
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}[I.dtype]
    wanted = leaves[0].grad.to(I.dtype).flatten(0, 1)
    torch.testing.assert_close(dI.cpu(), wanted, rtol=tolerance, atol=tolerance)
    if not sums:
        assert got.shape == (3, 0)
        return
    rounding = 1e-4 if tau.dtype == torch.float32 else 1e-11
    for row, leaf, used in zip(got.cpu(), leaves[1:], (True, v_th is not None, True), strict=True):
        wanted = torch.zeros(H, dtype=tau.dtype) if leaf.grad is None or not used else leaf.grad
        torch.testing.assert_close(row.view(B, H).sum(0), wanted, rtol=rounding, atol=rounding)


# L around a tile of 16 steps and a seam, chunks, resets, types, and rows beyond one program of 32.
CASES = {
    "plain": {"shape": (2, 3, 64)},
    "ragged, chunks": {"shape": (1, 5, 43), "chunk": SEAM},
    "soft, chunks, start": {"shape": (2, 2, 96), "chunk": SEAM, "soft": True, "start": True},
    "soft": {"shape": (2, 2, 35), "chunk": SEAM, "soft": True},
    "two programs": {"shape": (5, 7, 17)},
    "no threshold": {"shape": (1, 4, 33), "scaled": False},
    "float64": {"shape": (1, 3, 16), "dtype": torch.float64},
    "bfloat16, chunks": {"shape": (1, 3, 48), "dtype": torch.bfloat16, "chunk": SEAM},
    "float16": {"shape": (1, 3, 31), "dtype": torch.float16, "sums": False},
    "one step": {"shape": (2, 2, 1), "start": True},
}


@on_device
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_lif(kernels, case):
    case = {"dtype": torch.float32, "chunk": None, "soft": False, "scaled": True, "start": False, "sums": True, **case}
    B, H, L = case["shape"]
    I = current(B, H, L, case["dtype"])
    values = neuron(H, case["dtype"], case["scaled"])
    u0 = torch.linspace(-1, 0.9, B * H).view(B, H).to(values[0].dtype) if case["start"] else None
    seams = check_forward(kernels, I, *values, case["soft"], u0, case["chunk"])
    if not case["start"]:  # the seams hold what a start changes
        for through_time in (False, True):
            check_backward(kernels, I, *values, case["soft"], through_time, seams, case["chunk"], case["sums"])


@on_device
@pytest.mark.parametrize(
    ("width", "dtype"),
    [
        (None, torch.float32),
        (0.4, torch.float64),
        pytest.param(None, torch.float64, marks=pytest.mark.slow),
        pytest.param(0.4, torch.float32, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", WIDTHS)
def test_surrogate_gradients(kernels, name, width, dtype):
    I, values, surrogate = current(1, 3, 40, dtype), neuron(3, dtype), make_surrogate(name, width)
    seams = check_forward(kernels, I, *values)
    for through_time in (False, True):
        check_backward(kernels, I, *values, False, through_time, seams, SEAM, surrogate=surrogate)
    check_sdn(kernels, network(3, 2, dtype), I, values[1], surrogate=surrogate)


@on_device
@pytest.mark.parametrize("shape", [(0, 5), (4, 0)])
def test_nothing_to_do(kernels, shape):
    I, ones = torch.empty(shape, device=DEVICE), torch.ones(2, device=DEVICE)
    s, u, seams = kernels.lif_forward(I, ones / 2, ones, 0 * ones, False, None)
    assert (s.shape, u.shape, seams.shape) == (shape, shape[:1], (shape[0], -(-shape[1] // SEAM)))
    dI, sums = kernels.lif_backward(I, I, seams, ones / 2, ones, 0 * ones, False, True, True)
    assert dI.shape == shape
    assert torch.equal(sums.cpu(), torch.zeros(3, shape[0]))


@on_device
def test_at_the_threshold(kernels):
    """Inputs that put u' on 1, one rounding below it, or creep up to it; NaN never spikes, infinity does."""
    below = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    I = torch.tensor([1.0, below, 0.5, 0.5 + 2**-25, 0.5 - 2**-25, 0.0, torch.inf, torch.nan]).repeat(64, 1).T
    I[-1, :5], I[-2, 9:] = 1.0, 0.4
    tau = torch.full((8,), 0.5)
    check_forward(kernels, I.view(1, 8, 64).contiguous(), tau, None, torch.zeros(8), chunk=SEAM)
    check_forward(kernels, I.view(1, 8, 64).contiguous(), tau, torch.full((8,), 0.1), torch.zeros(8))


class Skip:
    """In place of a kernel: does nothing."""

    def __getitem__(self, grid):
        return lambda *args, **kwargs: None


class Pass:
    """In place of ``lif_repair``: hands on what was reached."""

    def __getitem__(self, grid):
        return lambda I, s, seams, assumed, reached, now, *args, **kwargs: now.copy_(reached)


@on_device
def test_wrong_guesses_are_repaired(kernels, monkeypatch):
    """Slow drive at tau near 1 remembers its phase beyond any early start, so guessed chunks are wrong."""
    H, L = 6, 4 * SEAM
    tau = torch.full((H,), 0.97)
    I = (0.03 * torch.linspace(1.05, 2.0, H))[:, None].repeat(1, L).view(1, H, L)
    values = (tau, None, torch.zeros(H))
    check_forward(kernels, I, *values, chunk=SEAM)
    monkeypatch.setattr(kernels, "lif_repair", Pass())
    check_forward(kernels, I, *values, chunk=SEAM)
    monkeypatch.setattr(kernels, "lif_settle", Skip())
    s = kernels.lif_forward(I.flatten(0, 1).to(DEVICE), *to_device(*values), False, None, SEAM)[0]
    assert (s.cpu() != lif_reference(I, tau)[1].flatten(0, 1)).any(), "this input does not test repair"


def network(d: int, k: int, dtype: torch.dtype = torch.float32, layers: int = 1) -> ReducedSDN:
    generator = torch.Generator().manual_seed(d + k)
    tensors = {n: torch.randn(s, generator=generator).to(dtype) / 2 for n, s in reduced_shapes(d, k, layers).items()}
    return ReducedSDN(tensors, tau=0.5)


def arguments(sdn: ReducedSDN) -> tuple[Tensor, tuple[int, int, int]]:
    return sdn.flat().to(DEVICE), sdn.sizes


def check_sdn(
    kernels, sdn: ReducedSDN, I: Tensor, v_th: Tensor | None, tolerance: float = 1e-5, surrogate=TRIANGLE
) -> None:
    B, H, L = I.shape
    dtype = real(I.dtype)
    x = I.to(dtype) if v_th is None else I.to(dtype) / v_th[:, None]
    wanted = sdn.to(dtype)(x).flatten(0, 1)
    rows, v_th = to_device(I.flatten(0, 1), v_th)
    s, mem = kernels.sdn_forward(rows, v_th, *arguments(sdn), True)
    s_only, nothing = kernels.sdn_forward(rows, v_th, *arguments(sdn), False)
    assert (s.dtype, mem.dtype, nothing.shape) == (I.dtype, dtype, (0, L))
    assert torch.equal(s, s_only)
    torch.testing.assert_close(mem.cpu(), wanted, rtol=tolerance, atol=tolerance)
    v = wanted + x.flatten(0, 1) - 1
    different = s.cpu() != (v >= 0)
    assert v.abs()[different].le(tolerance * 4).all()
    assert different.double().mean() < 1e-3

    grad = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2)).to(I.dtype)
    dI, sums = kernels.sdn_backward(grad.to(DEVICE), rows, mem, v_th, True, surrogate)
    v = mem.cpu() + x.flatten(0, 1) - 1
    g = grad.to(dtype) * surrogate(v)
    heights = torch.ones(B * H, 1, dtype=dtype) if v_th is None else v_th.cpu().repeat(B)[:, None]
    near = {torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(I.dtype, 1e-5)
    torch.testing.assert_close(dI.cpu(), (g / heights).to(I.dtype), rtol=near, atol=near)
    if v_th is not None:
        torch.testing.assert_close(sums.cpu(), -(g * x.flatten(0, 1) / heights).sum(-1), rtol=1e-4, atol=1e-4)


@on_device
@pytest.mark.parametrize(
    ("d", "k", "dtype", "layers"),
    [
        (8, 8, torch.float32, 1),
        (8, 8, torch.float64, 1),
        (8, 8, torch.bfloat16, 1),
        (5, 3, torch.float16, 1),
        (1, 1, torch.float32, 1),
        (3, 20, torch.float32, 1),
        (6, 4, torch.float32, 2),
        (6, 4, torch.float64, 2),
        (5, 3, torch.bfloat16, 2),
        (1, 1, torch.float32, 2),
    ],
)
def test_sdn(kernels, d, k, dtype, layers):
    sdn = network(d, k, real(dtype), layers)
    check_sdn(kernels, sdn, current(2, 2, 70, dtype), neuron(2, dtype)[1])
    check_sdn(kernels, sdn, current(1, 2, 1, dtype), None)


@on_device
def test_sdn_never_spikes_on_nan(kernels):
    I = torch.full((1, 40), torch.nan, device=DEVICE)
    I[:, 20:] = 5.0
    s, mem = kernels.sdn_forward(I, None, *arguments(network(8, 8)), True)
    assert mem[0, 1:28].isnan().all()
    assert not mem[0, 28:].isnan().any()
    assert not s[0, :28].any()


@on_device
def test_operator_of_the_exact_neuron(kernels):
    I, tau, v_th, u_r = (t.to(DEVICE).requires_grad_() for t in (current(1, 2, 20), *neuron(2)))
    torch.library.opcheck(torch.ops.sdn.lif.default, (I, tau, v_th, u_r, None, False, True))
    s = ops.lif(I, tau, v_th, u_r, gradient="bptt")
    assert torch.equal(s.cpu(), lif_reference((I / v_th[:, None]).cpu(), tau.cpu(), u_r.cpu())[1])


@on_device
def test_operator_of_the_surrogate(kernels):
    I, v_th = (t.to(DEVICE).requires_grad_() for t in (current(1, 2, 20), neuron(2)[1]))
    sdn = network(3, 2).to(DEVICE)
    torch.library.opcheck(torch.ops.sdn.surrogate.default, (I, v_th, *arguments(sdn), True))
    wanted = (sdn(I / v_th[:, None]) + I / v_th[:, None] - 1 >= 0).to(I.dtype)
    assert torch.equal(ops.surrogate(I, sdn, v_th), wanted)


@pytest.fixture
def native():
    return importlib.import_module("sdn.kernels.gpu")


def on_gpu(values: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    return [v if v is None else v.cuda() for v in values]


@gpu_only
@pytest.mark.parametrize(
    ("B", "H", "L"), [(64, 512, 1024), (64, 512, 8192), (1, 512, 65536), (1, 64, 8192), (8, 256, 784), (3, 100, 1001)]
)
@pytest.mark.parametrize("tau", [0.125, 0.5, 0.95])
def test_large(native, B, H, L, tau):
    """Real seams and the chunks the device asks for; the naive recurrence on the same GPU is the truth."""
    I = torch.randn(B, H, L, device="cuda") * 0.5 + torch.rand(B, H, 1, device="cuda")
    taus, v_th, u_r = on_gpu((torch.full((H,), tau), torch.linspace(0.6, 1.7, H), torch.zeros(H)))
    s, u, _ = native.lif_forward(I.flatten(0, 1), taus, v_th, u_r, False, None)
    potential, wrong = torch.zeros(B, H, device="cuda"), torch.zeros(B, H, dtype=torch.bool, device="cuda")
    for t in range(L):
        before = taus * potential + I[..., t] / v_th
        fired = before >= 1
        wrong |= s.view(B, H, L)[..., t] != fired
        potential = torch.where(fired, 0.0, before)
    print(f"{int(wrong.sum())} of {B * H} rows differ")
    assert wrong.float().mean() <= 0.01
    assert torch.equal(u.view(B, H)[~wrong], potential[~wrong])


@gpu_only
@pytest.mark.parametrize("through_time", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("B", "H", "L"), [(32, 1024, 512), (1, 96, 2048), (4, 64, 777)])
def test_large_gradients(native, B, H, L, soft, through_time):
    I, values = current(B, H, L), neuron(H)
    seams = check_forward(native, I, *values, soft)
    check_backward(native, I, *values, soft, through_time, seams)


@gpu_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("L", [1024, 8192, 1000])
def test_large_sdn(native, L, dtype):
    check_sdn(native, network(8, 8), current(16, 64, L, dtype), neuron(64)[1])


@gpu_only
@pytest.mark.parametrize("gradient", ["sltt", "bptt"])
def test_compiled_and_autocast(gradient):
    """What a layer does: a product in bfloat16, the neuron, a product; compiled in one graph, with gradients."""
    torch.manual_seed(0)
    mix, values = torch.nn.Linear(512, 512).cuda(), on_gpu(neuron(256))
    x = torch.randn(4, 256, 512, device="cuda")

    def step(x: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return mix(ops.lif(mix(x), *values, gradient=gradient))

    eager, compiled = (f(x.clone().requires_grad_()) for f in (step, torch.compile(step, fullgraph=True)))
    assert eager.dtype == torch.bfloat16
    torch.testing.assert_close(compiled, eager, rtol=2e-2, atol=2e-2)
    compiled.float().square().sum().backward()
    assert mix.weight.grad.isfinite().all()
    assert mix.weight.grad.any()


@gpu_only
def test_same_bits_every_time(native):
    """No atomics anywhere: twice the same call, twice the same result."""
    rows, values = current(2, 64, 4096).flatten(0, 1).cuda(), on_gpu(neuron(64))

    def results() -> list[Tensor]:
        s, u, seams = native.lif_forward(rows, *values, False, None)
        return [s, u, seams, *native.lif_backward(torch.ones_like(rows), rows, seams, *values, False, True, True)]

    assert all(torch.equal(a, b) for a, b in zip(results(), results(), strict=True))


@gpu_only
def test_other_device_than_the_current():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    native = importlib.import_module("sdn.kernels.gpu")
    I, values = current(2, 8, 100).flatten(0, 1), neuron(8)
    wanted = native.lif_forward(I.cuda(0), *(v.cuda(0) for v in values), False, None)[0].cpu()
    assert torch.equal(wanted, native.lif_forward(I.cuda(1), *(v.cuda(1) for v in values), False, None)[0].cpu())
