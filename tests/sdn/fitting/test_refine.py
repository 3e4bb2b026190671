"""Constructed start, second-order refinement, and what the shipped networks reach."""

import pytest
import torch

from sdn.errors import UserError
from sdn.fitting import metrics
from sdn.fitting.construct import construct, constructible
from sdn.fitting.laws import make_law
from sdn.fitting.reduce import reduce
from sdn.fitting.refine import _draw, main, refine
from sdn.fitting.simulate import Recipe, scan, write
from sdn.fitting.windows import WindowNet
from sdn.network import SDN, ReducedSDN, reduced_shapes
from sdn.weights import load_reduced, save_reduced


def data(tau, rows=200, steps=256, seed=0):
    current = torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed))
    mem, _ = scan(current.numpy(), tau)
    return current, torch.from_numpy(mem)


SIZES = [(5, 4, 1), (8, 8, 1), (6, 4, 2), (3, 1, 2), (4, 3, 3)]


def random(d, k, layers):
    generator = torch.Generator().manual_seed(d)
    shapes = reduced_shapes(d, k, layers).items()
    return ReducedSDN({n: torch.randn(s, generator=generator).double() / 2 for n, s in shapes}, 0.2)


@pytest.mark.parametrize(("d", "k", "layers"), SIZES)
def test_jacobian_is_the_derivative(d, k, layers):
    net = WindowNet(random(d, k, layers))
    x, t = torch.randn(20, net.window, dtype=torch.float64), torch.arange(20)
    mem, jacobian = net.jacobian(net.theta, x, t)
    torch.testing.assert_close(mem, net(net.theta, x, t))
    torch.testing.assert_close(jacobian, torch.func.jacrev(lambda theta: net(theta, x, t))(net.theta))


@pytest.mark.parametrize(("d", "k", "layers"), SIZES)
def test_windows_are_what_the_network_sees(d, k, layers):
    sdn, (current, mem) = random(d, k, layers), data(0.2, 4, 6)
    net = WindowNet(sdn)
    *windows, target = _draw([(current, mem)], net.window, 500, torch.Generator().manual_seed(0))

    def pairs(predicted, true):
        return {(round(p, 9), round(m, 9)) for p, m in zip(predicted.tolist(), true.tolist(), strict=True)}

    found = pairs(net(net.theta, *windows), target)
    assert found == pairs(sdn(current.double()).flatten(), mem.double().flatten())


@pytest.mark.parametrize(("d", "k"), [(3, 1), (3, 8), (4, 2), (8, 3), (8, 8), (16, 4)])
def test_constructed_network_is_a_neuron(d, k):
    current, mem = data(0.125)
    sdn = construct(0.125, d, k, width=0.005).float()
    assert sdn.n_weights() == d * k + d + d * d + d + d + 1
    ratio = metrics.evaluate(sdn, current, mem).ratio
    bound = 1.2 * metrics.evaluate(lambda x: metrics.truncated(x, 0.125, min(k, 2)), current, mem).ratio + 2e-4
    assert ratio < bound


@pytest.mark.parametrize(("d", "k"), [(5, 3), (6, 4), (8, 8)])
@pytest.mark.parametrize("tau", [0.125, 0.3])
def test_two_constructed_layers_know_more(tau, d, k):
    """Two steps back they reset exactly: not far from the exact recurrence over three inputs, but for their ramps."""
    current, mem = data(tau)
    sdn = construct(tau, d, k, width=0.0005, n_layers=2)
    ratio = metrics.evaluate(sdn, current.double(), mem.double()).ratio
    bound = metrics.evaluate(lambda x: metrics.truncated(x, tau, 3), current, mem).ratio
    assert ratio < 1.3 * bound + 1e-4


def test_two_constructed_layers_are_exact_from_the_first_step():
    """What a layer's past is before the first step must not matter."""
    current, mem = data(0.125, 5000, 3)
    score = metrics.evaluate(construct(0.125, 6, 4, width=1e-6, n_layers=2), current.double(), mem.double())
    assert score.mae_max < 1e-6


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((2, 8, 1), "at least 3 channels"), ((4, 8, 2), "at least 5"), ((6, 2, 2), "window"), ((8, 8, 3), "3 layers")],
)
def test_constructions_there_are_not(sizes, message):
    assert not constructible(*sizes)
    with pytest.raises(UserError, match=message):
        construct(0.2, *sizes[:2], n_layers=sizes[2])


@pytest.mark.parametrize("sizes", [(3, 1, 1), (8, 8, 1), (5, 3, 2)])
def test_constructions_there_are(sizes):
    assert constructible(*sizes)
    assert construct(0.2, *sizes[:2], n_layers=sizes[2]).sizes == sizes


def test_two_layers_are_refined_too():
    current, mem = data(0.2, 400)
    start = construct(0.2, 5, 3, n_layers=2)
    better = refine(start, [(current, mem)], 20, batch=4000)
    old, new = (metrics.evaluate(sdn, current, mem).mae_mean for sdn in (start.float(), better))
    assert new < old


def test_refinement_improves_and_repeats_exactly():
    current, mem = data(0.2, 400)
    torch.manual_seed(0)
    start = reduce(SDN(d_model=4, kernel_size=4).eval(), 0.2, {"kept": 1})
    before = [buffer.clone() for buffer in start.buffers()]
    seen = []
    better = refine(start, [(current, mem)], 20, batch=4000, progress=lambda *row: seen.append(row))
    assert all(map(torch.equal, before, start.buffers()))
    assert [step for step, _ in seen] == [10, 20]
    assert better.meta["kept"] == 1
    assert better.meta["refine_steps"] == 20
    old, new = (metrics.evaluate(sdn, current, mem).mae_mean for sdn in (start, better))
    assert new < old / 3
    again = refine(start, [(current, mem)], 20, batch=4000)
    assert all(map(torch.equal, better.buffers(), again.buffers()))


def test_refinement_never_returns_worse_than_it_was_given():
    current, mem = data(0.125)
    start = load_reduced(0.125)
    result = refine(start, [(current, mem)], 2, batch=200, smoothing=1e-3)
    old, new = (metrics.evaluate(sdn, current, mem).mae_mean for sdn in (start, result))
    assert new <= 1.2 * old


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": lambda: []}, "at least 10"),
        ({"data": lambda: [data(0.2, 9)]}, "at least 10"),
        ({"data": lambda: [(torch.full((20, 9), torch.nan), torch.zeros(20, 9))]}, "NaN"),
        ({"steps": lambda: 0}, "positive"),
        ({"batch": lambda: 0}, "positive"),
        ({"smoothing": lambda: 0}, "positive"),
    ],
    ids=["none", "few", "nan", "steps", "batch", "smoothing"],
)
def test_what_cannot_be_refined(change, message):
    arguments = {"sdn": lambda: construct(0.2), "data": lambda: [data(0.2, 20, 20)], "steps": lambda: 1}
    with pytest.raises(UserError, match=message):
        refine(**{name: make() for name, make in (arguments | change).items()})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "training.pt"
    write(Recipe("training", 50, 64, make_law("white"), 0.2), path)
    return path


def test_command(file, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(["--training", str(file), "--steps", "2", "--batch", "500", "--save", str(out)]) == 0
    sdn = load_reduced(out, tau=0.2)
    assert sdn.meta["command"].startswith("python -m sdn.refine --training")
    assert (sdn.meta["refine_data"][0]["N"], sdn.meta["refine_data"][0]["law"]) == (50, "white")
    assert "held-out error" in capsys.readouterr().out
    arguments = ["--training", str(file), "--start", str(out), "--steps", "1", "--batch", "500"]
    assert main([*arguments, "--save", str(tmp_path / "again.safetensors")]) == 0


def test_command_refuses_another_tau(file, tmp_path, capsys):
    save_reduced(construct(0.5), tmp_path / "start.safetensors")
    arguments = ["--training", str(file), "--start", str(tmp_path / "start.safetensors"), "--save", str(tmp_path / "x")]
    assert main(arguments) == 2
    assert "tau 0.5, not 0.2" in capsys.readouterr().err


@pytest.mark.parametrize(("tau", "ratio", "mae"), [(0.125, 0.0005, 0.0005), (0.2, 0.0018, 0.0010)])
def test_shipped_networks_meet_their_figures(tau, ratio, mae):
    current, mem = data(tau, 1000, 1024, seed=12345)
    score = metrics.evaluate(load_reduced(tau), current, mem)
    assert score.ratio < ratio
    assert score.mae_mean < mae
