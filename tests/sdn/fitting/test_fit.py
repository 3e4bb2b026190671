import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from sdn.errors import UserError
from sdn.fitting import cli, plots
from sdn.fitting import run as fit_run
from sdn.fitting.checkpoint import load_checkpoint, load_sdn
from sdn.fitting.data import load
from sdn.fitting.fit import Fit, FitConfig
from sdn.fitting.metrics import evaluate
from sdn.fitting.reduce import reduce
from sdn.fitting.sharpen import CONSTRUCTED, sharpen
from sdn.lock import owned
from sdn.network import SDN
from sdn.weights import load_reduced

ROOT = Path(__file__).parents[3]
OUTPUTS = {
    "exp.log",
    "metrics.csv",
    "last_checkpoint.pth",
    "best_checkpoint.pth",
    "sdn.safetensors",
    "report.json",
    "curves.png",
    "prediction.png",
}


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Drawing takes seconds and is tested in test_plots.py."""
    monkeypatch.setattr(plots, "curves", lambda history, baselines, path, *_: Path(path).touch())
    monkeypatch.setattr(plots, "prediction", lambda predict, data, path: Path(path).touch())


@pytest.fixture
def fit(data_file, tmp_path):
    """``fit(*options)`` runs train.py on small data in this process; ``fit.dir`` is its folder.

    No refinement, which takes a minute, unless it is asked for.
    """

    def run(*options, training=None, test=None, where="--save"):
        training, test = training or data_file(), test or data_file("test")
        if where == "--save" and "--refine" not in options:
            options = (*options, "--refine", "0")
        return train.main(["--training", str(training), "--test", str(test), where, str(run.dir), *options])

    run.dir = tmp_path / "exp"
    return run


def weights(directory):
    """Every tensor of the last checkpoint, the optimizer's included."""
    state = load_checkpoint(directory / fit_run.LAST)
    moments = [value for slot in state["optimizer"]["state"].values() for value in slot.values()]
    return [*state["model"].values(), *moments]


def same_bits(one, two):
    a, b = weights(one), weights(two)
    return len(a) == len(b) > 0 and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def table(directory):
    with open(directory / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_leaves_every_output_and_reports(fit):
    assert fit("--epochs", "3") == 0
    assert {path.name for path in fit.dir.iterdir()} == OUTPUTS
    log = (fit.dir / "exp.log").read_text()
    for words in ("MAE", "std", "max", "spike accuracy", "wrong/true spikes", "epoch 3/3", "test (60 sequences"):
        assert words in log
    assert log.count("baseline no memory") == log.count("baseline exact recurrence over the last 4 inputs") == 1
    rows = table(fit.dir)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"train_loss", "val_loss", "val_mae_mean", "val_spike_accuracy", "val_wrong_over_true"} < set(rows[0])


def test_file_for_neurons_is_the_best_checkpoint_reduced(fit, data_file):
    fit("--epochs", "2")
    reduced = load_reduced(fit.dir / "sdn.safetensors", tau=0.2)
    assert reduced.n_weights() == 153
    sdn, tau, content = load_sdn(fit.dir / "best_checkpoint.pth")
    assert tau == 0.2
    assert sum(p.numel() for p in sdn.parameters()) == 193
    x = load(data_file("test")).input
    torch.testing.assert_close(reduced(x), sdn(x), rtol=1e-4, atol=1e-5)
    report = json.loads((fit.dir / "report.json").read_text())
    assert report["best_epoch"] == content["epoch"]
    assert report["test"]["wrong_over_true"] >= 0


def test_checkpoints_hold_plain_data(fit):
    fit("--epochs", "1")

    def plain(value):
        if isinstance(value, dict):
            return all(map(plain, value)) and all(map(plain, value.values()))
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str, bool, torch.Tensor)

    for name in (fit_run.LAST, fit_run.BEST):
        assert plain(dict(torch.load(fit.dir / name, weights_only=True)) | {"model": {}})


def test_fit_learns(data_file):
    data = load(data_file(number=200, timestep=128))
    fit = Fit(FitConfig(epochs=15, batch_size=8), data)
    rows = [fit.run_epoch() for _ in range(15)]
    assert rows[-1]["val_loss"] < 0.2 * rows[0]["val_loss"]
    no_memory = data.mem.square().mean().item() / 2
    assert rows[-1]["val_loss"] < 0.5 * no_memory


def test_split_is_a_tenth_and_the_learning_rate_ends_at_zero(data_file):
    fit = Fit(FitConfig(epochs=2, batch_size=1, seed=3), load(data_file()))
    assert (len(fit.validation), len(fit.training)) == (6, 54)
    assert sorted([*fit.validation.tolist(), *fit.training.tolist()]) == list(range(60))
    other = Fit(FitConfig(seed=4), load(data_file()))
    assert fit.validation.tolist() != other.validation.tolist()
    assert fit.run_epoch()["lr"] == pytest.approx(0.005, abs=2e-4)
    assert fit.run_epoch()["lr"] == pytest.approx(0, abs=1e-4)


def test_same_seed_same_bits_and_global_random_state_untouched(data_file):
    before = torch.get_rng_state()
    one, two, other = (Fit(FitConfig(seed=seed), load(data_file())) for seed in (1, 1, 2))
    for each in (one, two, other):
        each.run_epoch()
    assert all(torch.equal(a, b) for a, b in zip(one.sdn.parameters(), two.sdn.parameters(), strict=True))
    assert not torch.equal(one.sdn.encoder.weight, other.sdn.encoder.weight)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n_layers", [1, 2])
def test_resume_equals_unbroken_run(fit, monkeypatch, n_layers):
    options = ["--epochs", "4", "--n_layers", str(n_layers)]
    fit(*options)
    unbroken = fit.dir
    fit.dir = unbroken.with_name("broken")
    with monkeypatch.context() as patch:

        def breaks(self, batches, rates, whole=Fit.steps):
            if self.epoch == 2:
                raise KeyboardInterrupt
            return whole(self, batches, rates)

        patch.setattr(Fit, "steps", breaks)
        assert fit(*options) == 130
    assert len(table(fit.dir)) == 2
    assert fit(where="--resume") == 0
    assert same_bits(unbroken, fit.dir)
    assert table(unbroken) == table(fit.dir)
    one, two = (load_reduced(folder / "sdn.safetensors").state_dict() for folder in (unbroken, fit.dir))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_resume_equals_unbroken_run_after_sigkill(fit, data_file):
    """Killed at whatever point of an epoch the moment falls on."""
    files = {"training": data_file(number=400, timestep=128), "test": data_file("test")}
    options = ["--epochs", "8", "--batch_size", "4", "--refine", "0"]
    killed = fit.dir
    command = [sys.executable, "train.py", *(f"--{role}={path}" for role, path in files.items())]
    process = subprocess.Popen(
        [*command, f"--save={killed}", *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while not (killed / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(table(killed)) < 8
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums of another number of threads round differently
    try:
        assert fit(where="--resume", **files) == 0
        fit.dir = killed.with_name("unbroken")
        assert fit(*options, **files) == 0
    finally:
        torch.set_num_threads(threads)
    assert same_bits(killed, fit.dir)
    assert table(killed) == table(fit.dir)


def broken_off(fit, monkeypatch, epoch, *options):
    """A fit that Ctrl-C ends in the given epoch."""
    with monkeypatch.context() as patch:

        def breaks(self, batches, rates, whole=Fit.steps):
            if self.epoch == epoch:
                raise KeyboardInterrupt
            return whole(self, batches, rates)

        patch.setattr(Fit, "steps", breaks)
        assert fit(*options) == 130


def test_ctrl_c_says_where_to_go_on_and_leaves_a_reduced_network(fit, monkeypatch, capsys):
    broken_off(fit, monkeypatch, 2, "--epochs", "4")
    assert f"go on with --resume {fit.dir}" in capsys.readouterr().err
    best = load_checkpoint(fit.dir / fit_run.BEST)
    reduced = load_reduced(fit.dir / fit_run.REDUCED, tau=0.2)
    assert reduced.meta["epoch"] == best["epoch"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_last_checkpoint_does_not_stop_a_resumed_run(fit, monkeypatch, capsys, damage):
    fit("--epochs", "4")
    whole = fit.dir
    fit.dir = whole.with_name("broken")
    broken_off(fit, monkeypatch, 3, "--epochs", "4")
    last = fit.dir / fit_run.LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 16
    last.write_bytes({"cut": content[:2000], "flipped": content, "empty": b""}[damage])
    capsys.readouterr()
    assert fit(where="--resume") == 0
    assert "going on from" in capsys.readouterr().err
    assert same_bits(whole, fit.dir)
    assert table(whole) == table(fit.dir)


def test_two_fits_in_one_folder(fit, capsys):
    with owned(fit.dir):
        assert fit("--epochs", "1") == 2
    assert "is in use by process" in capsys.readouterr().err


def test_resume_of_a_finished_run_says_so(fit, capsys):
    fit("--epochs", "1")
    assert fit(where="-r") == 0
    assert "is finished after 1 epochs" in capsys.readouterr().out


def test_killed_after_the_last_epoch_the_outputs_are_made(fit):
    fit("--epochs", "1")
    for name in ("report.json", "sdn.safetensors", "curves.png"):
        (fit.dir / name).unlink()
    assert fit(where="--resume") == 0
    assert {path.name for path in fit.dir.iterdir()} == OUTPUTS


def test_resume_refuses_other_data_and_options(fit, data_file, capsys):
    assert fit("--epochs", "1", where="--resume") == 2
    assert "holds no run" in capsys.readouterr().err
    fit("--epochs", "1")
    for change, words in (
        ({"training": data_file(seed=1, number=61)}, "other training data"),
        ({"test": data_file("other")}, "other test data"),
    ):
        capsys.readouterr()
        assert fit(where="--resume", **change) == 2
        assert words in capsys.readouterr().err
    assert fit("--lr", "0.5", where="--resume") == 2
    assert "started with lr 0.01, not 0.5" in capsys.readouterr().err
    assert fit("--lr", "0.01", "--epochs", "1", where="--resume") == 0


@pytest.mark.parametrize("content", [b"", b"text", {"model": torch.ones(3)}], ids=["empty", "text", "foreign"])
def test_foreign_checkpoint_is_one_sentence(fit, capsys, content):
    fit("--epochs", "1")
    last = fit.dir / fit_run.LAST
    torch.save(content, last) if isinstance(content, dict) else last.write_bytes(content)
    capsys.readouterr()
    assert fit(where="--resume") == 2
    err = capsys.readouterr().err
    assert "last_checkpoint.pth" in err
    assert err.count("\n") == 1


def test_checkpoint_of_another_network_is_refused(fit, data_file):
    fit("--epochs", "1")
    path = fit.dir / fit_run.BEST
    content = torch.load(path, weights_only=True)
    torch.save(content | {"model": SDN(4).state_dict()}, path)
    with pytest.raises(UserError, match="do not fit"):
        load_sdn(path)
    with pytest.raises(UserError, match="not one of this network"):
        Fit(FitConfig(d_model=4), load(data_file())).load_state(content)


def test_new_run_does_not_overwrite_an_old_one(fit, capsys):
    fit("--epochs", "1")
    before = (fit.dir / fit_run.LAST).read_bytes()
    assert fit("--epochs", "1") == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (fit.dir / fit_run.LAST).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", "0"], "lr must be"),
        (["--lr", "nan"], "lr must be"),
        (["--weight_decay", "-1"], "weight_decay"),
        (["--epochs", "0"], "epochs must be"),
        (["--batch_size", "0"], "batch_size must be"),
        (["--seed", "-1"], "seed must be"),
        (["--d_model", "0"], "d_model"),
        (["--k", "0"], "kernel_size"),
        (["--n_layers", "-1"], "n_layers"),
        (["--device", "cuda:99"], "not available"),
        (["--resume", "elsewhere"], "give one of them"),
    ],
)
def test_nonsense_is_one_sentence_and_code_2(fit, capsys, options, words):
    assert fit(*options) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("role", ["training", "test"])
@pytest.mark.parametrize("fault", ["missing", "truncated", "foreign", "shape", "NaN"])
def test_bad_data_through_the_door(fit, data_file, tmp_path, capsys, role, fault):
    bad = tmp_path / "bad.pt"
    good = data_file()
    content = torch.load(good, weights_only=True)
    if fault == "truncated":
        bad.write_bytes(good.read_bytes()[:-3000])
    elif fault == "foreign":
        torch.save({"weight": torch.ones(3)}, bad)
    elif fault == "shape":
        torch.save(content | {"mem": content["mem"][:, 1:]}, bad)
    elif fault == "NaN":
        content["input"][1, 2] = math.nan
        torch.save(content, bad)
    assert fit(**{role: bad}) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {'mem in ' if fault == 'shape' else 'input in ' if fault == 'NaN' else ''}{bad}")
    assert err.count("\n") == 1
    assert not fit.dir.exists()


def test_test_data_of_another_neuron_are_refused(fit, data_file, capsys):
    assert fit(test=data_file("test", tau=0.125)) == 2
    assert "tau 0.125, not 0.2" in capsys.readouterr().err


def test_loss_that_is_not_finite_stops_with_a_sentence(fit, monkeypatch, capsys):
    monkeypatch.setattr(Fit, "steps", lambda *_: [math.nan])
    assert fit("--epochs", "2") == 2
    assert capsys.readouterr().err.count("the loss became nan in epoch 1, step 1; lower --lr (0.01)") == 1
    assert "the loss became nan" in (fit.dir / "exp.log").read_text()


def test_folder_that_cannot_be_made(fit, capsys):
    fit.dir.write_text("")
    assert fit("--epochs", "1") == 2
    assert "cannot write" in capsys.readouterr().err


def test_last_batch_of_one_and_smallest_data(fit, data_file):
    assert fit("--epochs", "1", "--batch_size", "53", "--num_workers", "4") == 0
    assert "--num_workers 4 has no effect" in (fit.dir / "exp.log").read_text()
    fit.dir = fit.dir.with_name("smallest")
    assert (
        fit("--epochs", "1", training=data_file(number=2, timestep=2), test=data_file("t", number=1, timestep=1)) == 0
    )


def test_too_little_data_is_refused(fit, data_file, capsys):
    assert fit(training=data_file(number=1)) == 2
    assert "too small to fit to" in capsys.readouterr().err
    assert fit("--refine", "1", training=data_file(number=10)) == 2
    assert "too small for --refine" in capsys.readouterr().err


def test_refine_improves_on_the_fit(fit):
    fit("--epochs", "3")
    plain = json.loads((fit.dir / "report.json").read_text())
    fit.dir = fit.dir.with_name("refined")
    assert fit("--epochs", "3", "--refine", "5") == 0
    refined = json.loads((fit.dir / "report.json").read_text())
    assert refined["test"]["mae_mean"] < plain["test"]["mae_mean"]


def test_refinement_by_default_where_it_is_written_for(fit, data_file, monkeypatch):
    monkeypatch.setattr(cli, "REFINE", 3)
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def steps(name, *options, number=60):
        files = ["--training", str(data_file(number=number)), "--test", str(data_file("test"))]
        assert train.main([*files, "--save", str(fit.dir.with_name(name)), "--epochs", "1", *options]) == 0
        return json.loads((fit.dir.with_name(name) / "report.json").read_text())["config"]["refine"]

    assert steps("one") == 3
    assert steps("two", "--n_layers", "2") == 0
    assert steps("few", number=19) == 0
    assert steps("none", "--refine", "0") == 0
    reduced = load_reduced(fit.dir.with_name("one") / "sdn.safetensors", tau=0.2)
    assert reduced.meta["refine_steps"] == 3
    assert reduced.meta["start"] in ("fitted", *CONSTRUCTED)
    assert (
        "refinement of the second constructed network, step 3/3" in (fit.dir.with_name("one") / "exp.log").read_text()
    )


def test_refinement_from_all_starts_keeps_the_best_and_repeats_exactly(data_file):
    data = load(data_file(number=200, timestep=64))
    split = [(data.input[part], data.mem[part]) for part in (slice(150), slice(150, 200))]
    torch.manual_seed(0)
    start, threads, ends = reduce(SDN().eval(), 0.2), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            ends.append(sharpen(start, *split, 4, seed=1))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    (one, errors), (two, _) = ends
    assert all(map(torch.equal, one.buffers(), two.buffers()))
    assert evaluate(one, *split[1]).mae_mean == min(errors.values())
    assert one.meta["start"] == min(errors, key=errors.get)
    narrow = reduce(SDN(d_model=2).eval(), 0.2)
    assert set(sharpen(narrow, *split, 1)[1]) == {"fitted"}


def test_ctrl_c_during_the_refinement_ends_both(data_file):
    data = load(data_file())

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharpen(reduce(SDN().eval(), 0.2), (data.input, data.mem), (data.input, data.mem), 10_000, progress=stop)


@pytest.mark.gpu
def test_fits_on_a_gpu(fit):
    assert fit("--epochs", "2", "--device", "cuda") == 0
    assert load_reduced(fit.dir / "sdn.safetensors").n_weights() == 153


def test_help_names_both_jobs_at_once():
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--training" in done.stdout
    assert "experiment=spikingssm/mnist" in done.stdout
    code = "import sys, train; train.main(['-h']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "train.py", "--training", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for flag in ("--test", "-s", "--save", "-r", "--resume", "--lr", "--weight_decay", "--epochs", "--batch_size"):
        assert flag in done.stdout
    for flag in ("--num_workers", "--n_layers", "--d_model", "--k", "--kernel_size", "--seed", "--device"):
        assert flag in done.stdout


def test_door_sends_each_job_to_its_module(monkeypatch):
    calls = []
    monkeypatch.setattr("sdn.fitting.cli.main", lambda argv: calls.append(argv))
    for argv in (["--training", "f"], ["--lr", "1", "--training=f"]):
        train.main(argv)
    assert calls == [["--training", "f"], ["--lr", "1", "--training=f"]]
