"""The benchmarks compare like with like, and their printing and files work."""

import csv
import io

import pytest
import torch
from rich.console import Console

from benchmarks import stream
from benchmarks.neurons import candidates
from benchmarks.reference import EagerSDN, ReferenceNetwork
from benchmarks.rows import draw, rows_of, show, write_csv
from benchmarks.timing import Measured, interleaved, peak_memory
from models.spike.ssm import SpikingSSM
from sdn.weights import load_reduced

CPU = torch.device("cpu")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_reference_composition_is_our_network(bidirectional):
    torch.manual_seed(0)
    theirs = ReferenceNetwork(2, 12, 8, EagerSDN(load_reduced(0.125)), bidirectional).double().eval()
    layer = {"d_state": 8, "bidirectional": bidirectional, "neuron": "sdn"}
    ours = SpikingSSM(12, 2, prenorm=False, postnorm="legacy", layer=layer).double().eval()
    with torch.no_grad():
        for mine, other in zip(ours.layers, theirs.layers, strict=True):
            for name in ("log_dt", "log_A_real", "A_imag", "C"):
                getattr(mine.kernel, name).copy_(getattr(other, name))
            mine.D.copy_(other.D)
            other.ln_vth.normal_(std=0.3)
            mine.ln_vth.copy_(other.ln_vth.squeeze(1))
            mine.mix.load_state_dict(other.mix.state_dict())
    x = torch.randn(2, 40, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x))
    ours(x)[0].square().sum().backward()
    theirs(x).square().sum().backward()
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        close = {"rtol": 1e-5, "atol": 1e-6}  # the skip is apart there, and its weights are float32
        torch.testing.assert_close(mine.ln_vth.grad, other.ln_vth.grad.squeeze(1), **close)
        torch.testing.assert_close(mine.kernel.C.grad, other.C.grad, **close)
        torch.testing.assert_close(mine.mix.weight.grad, other.mix.weight.grad, **close)


def test_neurons_of_the_table_fire_alike():
    torch.manual_seed(0)
    current = torch.randn(2, 16, 64)
    found = candidates(CPU)
    exact = found["sltt"].spikes(current)
    for name in ("bptt", "naive loop", "SpikingJelly LIFNode"):
        if name not in found:
            continue
        neuron = found[name]
        s = neuron.spikes(current.movedim(-1, 0)).movedim(0, -1) if neuron.time_first else neuron.spikes(current)
        assert torch.equal(s, exact), name
    for name in ("eager SDN", "fused SDN"):
        assert (found[name].spikes(current) != exact).float().mean() < 0.005


def test_stream_candidates_agree_and_fire_as_asked(monkeypatch):
    net = stream.network(24, 2, rate=0.2)
    monkeypatch.setattr(stream.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(stream.torch, "compile", lambda call: call)
    steps = stream.candidates(net)
    for x in torch.randn(60).tolist():
        scores = {name: torch.as_tensor(step(x)).flatten() for name, step in steps.items()}
    for name in ("PyTorch model.step", "PyTorch step graph", "torch.compile"):
        torch.testing.assert_close(scores["event-driven"], scores[name], rtol=1e-4, atol=1e-4)
    assert 0.1 < steps["event-driven"].engine.firing_rates.mean() < 0.3


def test_interleaved_measures_every_call_and_memory():
    calls = dict.fromkeys(("a", "b"), 0)

    def call(name):
        calls[name] += 1
        return torch.ones(1 << 20)

    found = interleaved({name: lambda name=name: call(name) for name in calls}, CPU, repeats=4, memory=False)
    assert calls == {"a": 5, "b": 5}
    assert all(m.seconds > 0 and m.peak_bytes is None for m in found.values())
    peak = peak_memory(lambda: torch.ones(16 << 20), CPU)
    assert peak is None or 60e6 < peak < 80e6


def test_rows_are_printed_written_and_drawn(tmp_path):
    rows = []
    for x in (8, 16):
        measured = {"slow": Measured(0.2, 0.01, 2 << 20), "fast": Measured(0.1, 0.01, 1 << 20)}
        rows += rows_of("neuron", f"4 x {x}, forward", measured, against="slow", x=x)
    assert [row.ratio for row in rows] == pytest.approx([1, 2, 1, 2])
    assert rows[1].memory_ratio == pytest.approx(2)
    text = io.StringIO()
    show(rows, Console(file=text, width=120))
    assert "4 x 16, forward" in text.getvalue()
    write_csv(rows, tmp_path / "rows.csv")
    assert len(list(csv.DictReader((tmp_path / "rows.csv").open()))) == 4
    draw(rows, tmp_path / "rows.png", "title", "L")
    assert (tmp_path / "rows.png").stat().st_size > 5000
