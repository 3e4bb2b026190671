"""The benchmarks compare like with like, and their printing and files work."""

import csv
import io
import json
import os
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from rich.console import Console

import benchmarks.__main__
import models.spike
from benchmarks import busy, conditions, gpu, neuromorphic, step, stream, stream_candidates
from benchmarks.neurons import candidates
from benchmarks.reference import EagerSDN, ReferenceNetwork, released_size
from benchmarks.rows import Row, draw, rows_of, show, write_csv
from benchmarks.timing import Measured, interleaved, peak_memory
from models.spike.ssm import SpikingSSM
from sdn.errors import UserError
from sdn.neurons import SDNNeuron

CPU = torch.device("cpu")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_reference_composition_is_our_network(bidirectional):
    torch.manual_seed(0)
    theirs = ReferenceNetwork(2, 12, 8, EagerSDN(released_size(0.125)), bidirectional).double().eval()
    layer = {"d_state": 8, "bidirectional": bidirectional, "neuron": SDNNeuron(released_size(0.125))}
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


def test_the_twin_without_spikes_is_our_network_with_gelu():
    torch.manual_seed(0)
    theirs = ReferenceNetwork(2, 12, 8, torch.nn.GELU(), spiking=False).double().eval()
    ours = step._normed(step.Shape("", 2, 40, 12, 2, False, d_state=8), "gelu").double().eval()
    with torch.no_grad():
        for mine, norm, other in zip(ours.layers, ours.norms, theirs.layers, strict=True):
            for name in ("log_dt", "log_A_real", "A_imag", "C"):
                getattr(mine.kernel, name).copy_(getattr(other, name))
            mine.D.copy_(other.D)
            mine.mix.load_state_dict(other.mix.state_dict())
            other.norm.load_state_dict(norm.state_dict())
    x = torch.randn(2, 40, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x))
    for network in (ours, theirs):
        y = network(x)
        (y[0] if isinstance(y, tuple) else y).square().sum().backward()
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        torch.testing.assert_close(mine.kernel.C.grad, other.C.grad)
        torch.testing.assert_close(mine.mix.weight.grad, other.mix.weight.grad)


@pytest.mark.parametrize("streams", [1, 5])
def test_stream_candidates_agree_and_fire_as_asked(monkeypatch, streams):
    network = stream.tuned(24, 2, rate=0.2)
    monkeypatch.setattr(stream_candidates.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(stream_candidates.torch, "compile", lambda call, **options: call)
    found = stream_candidates.candidates(network, streams)
    assert set(found) == {"event engine", "network.step", "own dense kernel", "torch.compile"}
    inputs = torch.randn(60, streams, 1).numpy()
    facts = stream.check(found, inputs)
    assert 0.1 < facts["firing_rate"] < 0.3
    assert all(candidate.agree == 1 for candidate in found.values())
    taken = stream.latencies(found, inputs, 0.01, evict=True)
    assert all(len(seconds) >= 100 for seconds in taken.values())
    found["own dense kernel"].step = lambda x: torch.zeros(streams, 10).numpy()
    with pytest.raises(UserError, match="own dense kernel does not compute"):
        stream.check(found, inputs)


def test_trained_networks_stream_their_own_data():
    inputs = stream.recordings("digits", 3)
    assert inputs.shape == (64, 3, 1)
    network = models.spike.load("digits")
    found = stream_candidates.candidates(network, 3, ("event engine", "own dense kernel"))
    assert 0.05 < stream.check(found, inputs)["firing_rate"] < 0.3
    assert 0.15 < stream.working_set(network, 1) < 0.25


def test_a_network_of_the_real_time_row_hears_the_test_sound():
    sound, network = stream.signal(0.05), stream.tuned(128, 4, 0.1, steps=64)
    assert sound.shape == (1, 800, 1)
    by_block, by_sample = models.spike.StreamEngine(network), models.spike.StreamEngine(network)
    blocks = [by_block.run(sound[:, start : start + 160]) for start in range(0, 800, 160)]
    samples = [by_sample.step(sound[:, t]) for t in range(800)]
    answers = torch.as_tensor(np.concatenate(blocks, 1))
    assert torch.equal(answers, torch.as_tensor(np.stack(samples, 1)))
    assert answers.isfinite().all()
    assert by_block.firing_rates.min() > 0
    assert torch.equal(by_block.state()["modes"], by_sample.state()["modes"])


def test_frameworks_are_compared_on_neurons_that_fire_alike(monkeypatch):
    monkeypatch.setattr(neuromorphic.torch, "compile", lambda call: call)
    monkeypatch.setattr(neuromorphic, "STEPS", 60)
    for name, framework in neuromorphic.frameworks(CPU).items():
        agree = neuromorphic.agreement(framework, 16, CPU, torch.float64)
        assert agree == 1 if framework.exact else agree > 0.5, name
    deaf = neuromorphic.Framework(torch.zeros_like, (0.8, 1e6, "soft"), time_last=True)
    with pytest.raises(UserError, match="compares nothing"):
        neuromorphic.agreement(deaf, 16, CPU)
    call = neuromorphic._call(neuromorphic.frameworks(CPU)["ours"], 16, torch.nn.Linear(16, 16), CPU)
    forward, backward = neuromorphic._measure({"ours": call}, 3, CPU)["ours"]
    assert len(forward) == len(backward) == 3


def test_results_are_not_written_beside_other_work(tmp_path, monkeypatch, capsys):
    kept = conditions.ROOT / "results" / "benchmarks"
    conditions.refuse_busy(kept, anyway=False, others=0.05)
    conditions.refuse_busy(kept, anyway=True, others=1.5)
    conditions.refuse_busy(tmp_path, anyway=False, others=1.5)
    with pytest.raises(UserError, match="quiet machine"):
        conditions.refuse_busy(kept, anyway=False, others=1.5)
    monkeypatch.setattr(conditions, "others_cores", lambda: 1.5)
    before = sorted(kept.iterdir())
    assert benchmarks.__main__.main(["--tables", "s4d", "--quick", "--out", str(kept)]) == 2
    assert "1.5 of" in capsys.readouterr().err
    assert sorted(kept.iterdir()) == before


def test_a_table_comes_with_its_conditions(tmp_path, monkeypatch):
    row = Row("s4d", "case", "ours", 1.0, 0.9, 1.2, None, 2.0, "direct")
    monkeypatch.setattr("benchmarks.s4d.table", lambda device, quick: [row])
    monkeypatch.setattr(conditions, "others_cores", lambda: 0.0)
    assert benchmarks.__main__.main(["--tables", "s4d", "--device", "cpu", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "s4d-cpu.json").read_text())
    assert found["versions"]["torch"] == version("torch")
    assert found["cores_taken_by_others"] == 0
    assert found["load_at_start"] >= 0
    assert found["processor"]
    assert found["threads"] == torch.get_num_threads()
    assert next(csv.DictReader((tmp_path / "s4d-cpu.csv").open()))["high"] == "1.2"


def test_quartiles_and_the_load_of_others():
    m = Measured.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (m.seconds, m.low, m.high, m.p99) == (3, 2, 4, None)
    assert m.milliseconds[0] == 3000
    assert Measured.of([float(i) for i in range(101)]).p99 == pytest.approx(99)
    assert 0 <= conditions.others_cores(0.05) <= (os.cpu_count() or 1)


def test_busy_work_runs_and_its_loops_end():
    calls = busy.work(quick=True)
    assert len(calls) == 5
    for call in calls.values():
        call()
    with busy.loops(1):
        pass
    found = busy._threads(lambda: None, turns=2, seconds=0.001)
    assert list(found) == ["1 thread", "2 threads"]


def test_make_gpu_says_that_there_is_no_gpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_make_gpu_goes_on_after_a_part_that_fails(monkeypatch, tmp_path):
    for dry in (True, False):
        assert sum(part.seconds for part in gpu.parts(tmp_path, dry)) <= 60 * gpu.MINUTES
    python = [sys.executable, "-c"]
    waits = gpu.Part("waits", [*python, "import time; time.sleep(60)"], 0.5)
    fails = gpu.Part("fails", [*python, "import sys; print('why'); sys.exit(3)"], 60)
    works = gpu.Part("works", [*python, "import os; print(os.environ['WHAT'])"], 60, {"WHAT": "all is well"})
    monkeypatch.setattr(gpu, "parts", lambda out, dry: [waits, fails, works])
    assert gpu.main(["--dry", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "summary.json").read_text())
    ended = [found["parts"][name]["ended"] for name in ("waits", "fails", "works")]
    assert ended == ["stopped after 0 s", "failed with code 3", "done"]
    assert (tmp_path / "fails.log").read_text() == "why\n"
    assert (tmp_path / "works.log").read_text() == "all is well\n"


@pytest.mark.slow
def test_make_gpu_with_everything_but_the_device(tmp_path):
    assert gpu.main(["--dry", "--out", str(tmp_path)]) == 0, (tmp_path / "summary.json").read_text()
    for name in ("exact", "neuron", "step", "neuromorphic"):
        assert len(list(csv.DictReader((tmp_path / f"{name}-cpu.csv").open()))) > 2
    assert (tmp_path / "run-sltt/record.json").is_file()


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
        measured = {"slow": Measured(0.2, 0.19, 0.22, None, 2 << 20), "fast": Measured(0.1, 0.1, 0.11, None, 1 << 20)}
        rows += rows_of("neuron", f"4 x {x}, forward", measured, "slow", x, "forward")
    assert [row.ratio for row in rows] == pytest.approx([1, 2, 1, 2])
    assert rows[1].memory_ratio == pytest.approx(2)
    text = io.StringIO()
    show(rows, Console(file=text, width=120))
    assert "4 x 16, forward" in text.getvalue()
    write_csv(rows, tmp_path / "rows.csv")
    assert len(list(csv.DictReader((tmp_path / "rows.csv").open()))) == 4
    draw(rows, tmp_path / "rows.png", "title", "L")
    assert (tmp_path / "rows.png").stat().st_size > 5000
