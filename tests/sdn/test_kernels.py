"""How the kernels are chosen and run: without numba, in stretches of time, after a fork, without a cache folder."""

import builtins
import multiprocessing
import os
import subprocess
import sys
import warnings

import pytest
import torch

from sdn import kernels, ops
from sdn.kernels import cpu, cpu_jit, cpu_tile, plain, threads
from sdn.lif import lif_reference


def test_without_numba_everything_works_and_says_once_what_would_help(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "numba":
            raise ImportError("No module named 'numba'")
        return real(name, *args, **kwargs)

    for module in [name for name in sys.modules if name.startswith("sdn.kernels.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    kernels._compiled.cache_clear()
    current = torch.randn(2, 3, 300, requires_grad=True)
    try:
        with pytest.warns(RuntimeWarning, match="pip install .numba"):
            s = ops.lif(current, 0.3, gradient="bptt")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            s.sum().backward()
            assert torch.equal(s, ops.lif(current, 0.3))
    finally:
        kernels._compiled.cache_clear()
    assert torch.equal(s, lif_reference(current, 0.3)[1])


def test_use_is_undone_by_an_error():
    with kernels.use("plain"):
        assert kernels.pick("cpu").__name__ == plain.__name__
    with pytest.raises(ZeroDivisionError), kernels.use("plain"):
        raise ZeroDivisionError
    assert kernels.chosen() == "auto"


def test_no_cache_folder(monkeypatch):
    """Neither the package's folder nor the user's can be written: compiled in memory."""
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert cpu_jit.jit(lambda x: x + 1)(1) == 2


def _in_child(queue, current):
    queue.put(ops.lif(current, 0.3).numpy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork():
    """A data loader's worker is forked from a process whose threads it does not have."""
    current = torch.randn(4, 50, 300)
    truth = ops.lif(current, 0.3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, current))
    child.start()
    got = torch.from_numpy(queue.get(timeout=60))
    child.join(60)
    assert child.exitcode == 0
    assert torch.equal(got, truth)


@pytest.mark.parametrize("count", [0, 1, 7, 64, 1000])
def test_spread_covers_every_index_once(count):
    seen = []
    threads.spread(lambda first, last: seen.extend(range(first, last)), count, 8)
    assert sorted(seen) == list(range(count))


def test_spread_passes_errors_on():
    def fail(first, last):
        raise ValueError(first)

    with pytest.raises(ValueError, match="0"):
        threads.spread(fail, 100, 8)


@pytest.mark.parametrize(("rows", "steps"), [(1, 127), (1, 128), (1, 70_000), (3, 4096), (60, 1300), (500, 8192)])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_stretches_fit(rows, steps, workers):
    n, blocks = cpu.stretches(rows, steps, workers)
    assert n >= 1
    assert n * blocks * cpu_tile.BLOCK <= steps
    assert n == 1 or rows * n <= 2 * workers * cpu_tile.LANES


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("tau", [0.125, 0.65, 0.99])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("rows", [1, 70])
def test_any_cut_gives_the_same(monkeypatch, n, tau, reset, rows):
    """Speculation, repair and the stretches of the backward pass, forced on every number of rows."""
    g = torch.Generator().manual_seed(n)
    current = torch.cat([torch.randn(1, rows, 400, generator=g), torch.full((1, rows, 377), 0.45)], -1).double()
    current.requires_grad_()
    outgoing = torch.randn(current.shape, generator=g).double()
    tau, u_r = torch.full((rows,), tau, dtype=torch.float64, requires_grad=True), 0.1 * (reset == "hard")
    s = lif_reference(current, tau, u_r, reset)[1]
    truth = torch.autograd.grad(s, [current, tau], outgoing)
    monkeypatch.setattr(cpu, "stretches", lambda *_: (n, 6 // n))
    with kernels.use("cpu"):
        fast = ops.lif(current, tau, None, u_r, reset, "bptt")
        got = torch.autograd.grad(fast, [current, tau], outgoing)
    assert torch.equal(fast, s)
    torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-9)


def test_plain_takes_few_rounds(monkeypatch):
    """On white noise nearly every guess is right after one round; the worst input takes no more steps than a loop."""
    rounds = []
    scan = plain._scan
    monkeypatch.setattr(plain, "_scan", lambda *args: rounds.append(args[0].shape[1]) or scan(*args))
    with kernels.use("plain"):
        ops.lif(torch.randn(4, 16, 4096), 0.125)
        assert len(rounds) <= 5
        rounds.clear()
        ops.lif(torch.linspace(0.9, 1.1, 16).view(1, 16, 1).expand(1, 16, 4096), 0.99)
        assert len(rounds) <= 4096 // kernels.SEAM + 1


def _python(code, **environment):
    """Run ``code`` in a process of its own; its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_without_numbas_compiler():
    out = _python(
        "import torch; from sdn.neurons import make_neuron; from sdn import kernels\n"
        "x = torch.randn(2, 3, 200, requires_grad=True); s = make_neuron('bptt')(x); s.sum().backward()\n"
        "with kernels.use('reference'): assert torch.equal(make_neuron('bptt')(x), s)\n"
        "print('right')",
        NUMBA_DISABLE_JIT="1",
    )
    assert "right" in out
    assert "NUMBA_DISABLE_JIT is set. To make them faster, unset it" in out


def test_while_the_interpreter_shuts_down():
    """No new threads then; the caller works alone."""
    out = _python(
        "import atexit, torch; from sdn.neurons import make_neuron; torch.set_num_threads(2)\n"
        "x, neuron = torch.randn(40, 30, 100), make_neuron('bptt')\n"
        "atexit.register(lambda: print('right', torch.equal(neuron(x), want)))\n"
        "want = neuron(x)"
    )
    assert "right True" in out


def test_few_graphs_for_many_lengths():
    """A compiled neuron has one graph for a length and one for all others."""
    from torch._dynamo.testing import CompileCounter

    from sdn.neurons import make_neuron

    for name in ("bptt", "sdn"):
        torch._dynamo.reset()
        counter = CompileCounter()
        neuron, compiled = make_neuron(name), torch.compile(make_neuron(name), backend=counter)
        for length in range(20, 36):
            x = torch.randn(2, 3, length)
            assert torch.equal(compiled(x), neuron(x))
        assert counter.frame_count <= 2
    torch._dynamo.reset()


def test_code_is_kept_under_a_checksum_of_all_kernels():
    """What a compiled function calls stands in other files, of which numba's cache knows nothing."""
    assert cpu_jit.jit(_answer).__qualname__.endswith(cpu_jit.CHECKSUM)


def _answer():
    return 42
