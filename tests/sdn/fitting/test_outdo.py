"""A network inside given bounds on every law: its aim, its windows, and the command."""

import math

import numpy as np
import pytest
import torch

from sdn.errors import UserError
from sdn.fitting import bounds as bounds_module
from sdn.fitting.aim import Aim
from sdn.fitting.bounds import Judge, read_bounds
from sdn.fitting.card import LAWS
from sdn.fitting.construct import construct
from sdn.fitting.hard_windows import Pool, Source, Windows
from sdn.fitting.outdo import main, outdo
from sdn.fitting.windows import WindowNet
from sdn.weights import load_reduced, pretrained_path, save_reduced

TAU = 0.125
SMALL = ["--steps", "2", "--batch", "90"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Small sets to judge on and to search for hard windows."""
    monkeypatch.setattr(bounds_module.Judge.__init__, "__defaults__", (20, 64))
    monkeypatch.setattr("sdn.fitting.hard_windows._ROWS", 10)
    monkeypatch.setattr("sdn.fitting.hard_windows._STEPS", 32)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "bounds.csv"
    rows = [f'"{law}",{0.01 * (i + 1)},{0.1 * (i + 1)}' for i, law in enumerate(LAWS)]
    path.write_text("\n".join(["law,wrong_over_true,largest_error", *rows]) + "\n")
    return path


@pytest.mark.parametrize("law", LAWS)
def test_windows_and_the_law_of_the_next_input(law):
    """Windows end before t, are zero before the start, and the next input comes as often below a level as told."""
    source = Source(LAWS[law], TAU, 7, np.random.default_rng(0))
    rows, steps = source.current.shape
    windows = source.at(torch.arange(rows * steps))
    padded = torch.nn.functional.pad(source.current, (7, 0)).double()
    assert torch.equal(windows.x.view(rows, steps, 7), padded.unfold(1, 7, 1)[:, :steps])
    assert torch.equal(windows.mem.view(rows, steps).float(), source.mem)
    z = (source.current.flatten().double() - windows.mean) / windows.std
    if LAWS[law].name == "constant":
        assert not z.any()
        return
    assert abs(z.mean()) < 5 / math.sqrt(rows * steps)
    assert abs(z.std() - 1) < 5 / math.sqrt(rows * steps)


def test_expected_wrong_spikes_are_those_that_happen():
    rng = np.random.default_rng(0)
    windows = Windows(
        torch.zeros(3, 1).double(), torch.ones(3), *torch.tensor([[0.0, 0.1, 0.05], [0.0, 0.9, 0.8], [1.0, 0.3, 0.028]])
    )
    predicted = torch.tensor([0.1, 0.0, 0.12])
    mean, std = (column[:, None].numpy() for column in windows[3:])
    inputs = torch.from_numpy(rng.normal(mean, std, (3, 1_000_000)))
    happened = ((windows.mem[:, None] + inputs >= 1) != (predicted[:, None] + inputs >= 1)).double().mean(1).float()
    torch.testing.assert_close(windows.wrong(predicted), happened, rtol=0.02, atol=1e-4)
    slope = torch.func.vmap(torch.func.grad(lambda mem, w: Windows(*w).wrong(mem)))(predicted, tuple(windows))
    torch.testing.assert_close(windows.density(predicted) * (predicted - windows.mem).sign(), slope)


def test_pools_keep_the_worst():
    pool = Pool(3)
    make = lambda *mem: Windows(*(torch.tensor(mem),) * 5)  # noqa: E731
    pool.add(make(1.0, 4.0), torch.tensor([1.0, 4.0]))
    pool.add(make(3.0, 0.0, 2.0), torch.tensor([1.0, 4.0, 3.0, 0.0, 2.0]))
    assert sorted(pool.windows.mem.tolist()) == [2.0, 3.0, 4.0]


def test_slope_is_that_of_the_aim():
    """J'Wr is the derivative of F, but for the rounding of |r|, which is made small beside the errors."""
    net = WindowNet(construct(TAU, 5, 3, width=0.3, n_layers=2))
    sources = [Source(law, TAU, net.window, np.random.default_rng(1)) for law in LAWS.values()]
    bounds = torch.stack([torch.full((9,), 0.01), torch.full((9,), 0.02)]).double()
    aim = Aim(net, sources, bounds, 0.9)
    aim.weight = 3.0
    aim.scan(net.theta, construct(TAU, 5, 3, width=0.3, n_layers=2))
    drawn, hard = aim.draw(900), aim.hard()
    assert hard is not None
    slope = aim.curvature(net.theta, drawn, hard)[1]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(net.theta), generator=generator).double()
    direction *= 1e-6 / direction.norm()
    ahead, behind = (aim(net.theta + sign * direction, drawn, hard) for sign in (1, -1))
    assert (direction @ slope).item() == pytest.approx((ahead - behind) / 2, rel=0.05)


def test_steps_lead_towards_the_bounds(monkeypatch):
    monkeypatch.setattr("sdn.fitting.hard_windows._ROWS", 100)
    monkeypatch.setattr("sdn.fitting.hard_windows._STEPS", 128)
    start, judge = construct(TAU, 6, 4, width=0.3, n_layers=2), Judge(TAU, 5, 100, 128)
    bounds = judge(construct(TAU, 6, 4, width=0.1, n_layers=2)).maximum(judge.least)
    bounds[1] *= 2
    seen = []
    better, over = outdo(start, bounds, judge, 40, batch=3600, progress=lambda step, _: seen.append(step))
    assert seen == [0, 40]
    torch.testing.assert_close(judge(better) / bounds, over)
    assert over[0].max() < 0.9 * (judge(start) / bounds)[0].max()
    again, _ = outdo(start, bounds, judge, 40, batch=3600)
    assert all(map(torch.equal, better.buffers(), again.buffers()))


def test_command(table, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(["--than", str(table), "--save", str(out), *SMALL]) == 0
    sdn = load_reduced(out, tau=TAU)
    assert (sdn.sizes, sdn.n_weights()) == ((6, 4, 2), 151)
    assert sdn.meta["command"].startswith("python -m sdn.outdo --than")
    assert sdn.meta["outdo_steps"] == 2
    text = capsys.readouterr().out
    assert "step 2/2: " in text
    assert "constant U(.5, 1.5): " in text
    again = tmp_path / "again.safetensors"
    assert main(["--than", str(out), "--start", str(out), "--save", str(again), *SMALL]) == 0


def test_bounds_of_a_table_and_of_a_network(table, tmp_path):
    judge = Judge(TAU, 0)
    expected = torch.arange(1, 10).double()
    torch.testing.assert_close(read_bounds(str(table), TAU, judge), torch.stack([0.01 * expected, 0.1 * expected]))
    other = construct(TAU).float()
    save_reduced(other, tmp_path / "other.safetensors")
    found = read_bounds(str(tmp_path / "other.safetensors"), TAU, judge)
    torch.testing.assert_close(found, judge(other).maximum(judge.least))
    assert (found > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("largest_error", "largest"), "columns"),
        (lambda text: text.replace("0.01,", "many,"), "columns"),
        (lambda text: text.replace("0.01,", "0,"), "above 0"),
        (lambda text: text.replace("0.01,", "nan,"), "above 0"),
        (lambda text: text.replace("N(0, 16)", "N(0, 17)"), r"N\(0, 16\).*N\(0, 17\)"),
        (lambda text: "", "one row for each law"),
        (lambda text: "\0" + text, "bounds"),
    ],
    ids=["columns", "word", "zero", "nan", "law", "empty", "binary"],
)
def test_tables_that_are_no_bounds(change, message, table):
    table.write_text(change(table.read_text()))
    with pytest.raises(UserError, match=message):
        read_bounds(str(table), TAU, Judge(TAU, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--than", "nowhere.csv"], "cannot read the bounds nowhere.csv"),
        (["--than", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--tau", "1.5"], "tau"),
        (["--d_model", "4"], "at least 5 channels"),
        (["--steps", "0"], "steps"),
        (["--margin", "2"], "margin"),
        (["--weight", "nan"], "weight"),
        (["--batch", "8"], "batch"),
        (["--seed", "-1"], "seed"),
        (["--width", "0"], "width"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_a_sentence(arguments, message, table, tmp_path, capsys):
    path = tmp_path / "out.safetensors"
    assert main(["--than", str(table), "--save", str(path), *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


def test_the_shipped_network_is_inside_its_bounds():
    """On sequences of their own; an extreme, and a share of constants, differ a little from draw to draw."""
    path = pretrained_path(TAU).with_name(f"bounds_tau_{TAU}.csv")
    judge = Judge(TAU, 77, 1000, 512)
    over = judge(load_reduced(TAU)) / read_bounds(str(path), TAU, judge)
    assert over[0, :-1].max() < 1
    assert over[0, -1] < 1.05
    assert over[1].max() < 1.1
