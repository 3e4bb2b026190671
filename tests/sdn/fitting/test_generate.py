import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import generate
from sdn.fitting import simulate
from sdn.fitting.data import load
from sdn.fitting.laws import make_law
from sdn.fitting.simulate import Recipe, scan, write
from sdn.lif import lif_reference

ROOT = Path(__file__).parents[3]
SMALL = ["-N", "50", "-T", "20"]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def only_file(folder):
    (path,) = Path(folder).iterdir()
    return path


def recipe(**changed):
    return Recipe(**{"name": "a", "number": 700, "timestep": 500, "law": make_law(), "tau": 0.2} | changed)


def test_writes_the_documented_file_and_reports(tmp_path, capsys):
    assert generate.main([str(tmp_path / "new"), *SMALL]) == 0
    path = only_file(tmp_path / "new")
    assert path.name == "training-mem-T20-N(0.0,1.0)-50-tau_0.2.pt"
    out = capsys.readouterr().out
    rate = load(path).spike.float().mean().item()
    assert f"spiking rate {rate:.4f}" in out
    assert " MB" in out
    assert " s\n" in out


def test_header_says_what_was_asked(tmp_path):
    generate.main([str(tmp_path), *SMALL, "--law", "ar1", "--rho", "0.5", "-t", "0.3", "-n", "x", "--seed", "7"])
    assert only_file(tmp_path).name == "x-mem-T20-ar1(0.0,1.0,rho=0.5)-50-tau_0.3.pt"
    header = load(only_file(tmp_path)).header
    want = {"tau": 0.3, "v_th": 1.0, "reset": "hard", "u_r": 0.0, "law": "ar1", "rho": 0.5, "name": "x", "seed": 7}
    assert want.items() <= header.items()


def test_existing_file_is_left_alone_without_force(tmp_path, capsys):
    generate.main([str(tmp_path), *SMALL])
    path = only_file(tmp_path)
    path.write_bytes(b"mine")
    assert generate.main([str(tmp_path), *SMALL]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"
    assert generate.main([str(tmp_path), *SMALL, "--force"]) == 0
    load(path)


@pytest.mark.parametrize("law", ["white", "ar1", "mixture"])
def test_threads_and_missing_compiler_change_nothing(tmp_path, monkeypatch, law):
    one = recipe(law=make_law(law))
    assert len(one.slices(simulate._CHUNK)) > 1
    write(one, tmp_path / "1", threads=1)
    write(one, tmp_path / "3", threads=3)
    monkeypatch.setattr(simulate, "_compiled_scan", None)
    write(one, tmp_path / "plain", threads=2)
    assert digest(tmp_path / "1") == digest(tmp_path / "3") == digest(tmp_path / "plain")


@pytest.mark.gpu
def test_gpu_writes_the_same_file(tmp_path):
    write(recipe(), tmp_path / "cpu")
    write(recipe(), tmp_path / "gpu", device="cuda")
    assert digest(tmp_path / "cpu") == digest(tmp_path / "gpu")


def test_scan_has_the_bits_of_the_reference():
    rng = np.random.default_rng(0)
    x = np.concatenate([s * rng.standard_normal((100, 300), dtype=np.float32) for s in (0.1, 1, 10, 1e20)])
    x[:3, :5] = 1.0, 0.0, -0.0, 1e-45, 3e38
    for tau in (0.125, 0.2, 0.99):
        mem, spike = scan(x, tau)
        want_mem, want_spike, _ = lif_reference(torch.from_numpy(x), tau)
        assert mem.tobytes() == want_mem.numpy().tobytes()
        assert np.array_equal(spike, want_spike.numpy())


def test_random_stream_depends_on_the_description_alone():
    base = recipe().draw(0, 50)
    assert np.array_equal(base, recipe(tau=0.5).draw(0, 50))
    others = [
        recipe(name="test"),
        recipe(seed=1),
        recipe(number=701),
        recipe(timestep=501),
        recipe(law=make_law(std=2)),
    ]
    for other in others:
        drawn = other.draw(0, 50)[:, :500]
        assert abs(np.corrcoef(base.ravel(), drawn.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(base.ravel(), recipe().draw(1, 50).ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-t", "1"], "tau"),
        (["-t", "0"], "tau"),
        (["-t", "nan"], "tau"),
        (["-N", "0"], "at least 1"),
        (["-T", "0"], "at least 1 time step"),
        (["-s", "-1"], "cannot be negative"),
        (["-m", "inf"], "finite"),
        (["--law", "pink"], "unknown law"),
        (["--rho", "0.5"], "belongs to the law ar1"),
        (["--seed", "-1"], "seed"),
        (["-n", "a/b"], "name"),
        (["-n", ""], "name"),
        (["--device", "cuda:99"], "not available"),
        (["--device", "abacus"], "not available"),
        (["--device", "meta"], "not available"),
    ],
)
def test_nonsense_is_one_sentence_and_code_2(tmp_path, capsys, options, words):
    assert generate.main([str(tmp_path / "out"), *SMALL, *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert generate.main([str(tmp_path / "file"), *SMALL]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_full_disk_is_noticed_before_and_during(tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        assert generate.main([str(tmp_path), *SMALL]) == 2
    assert "free some space" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(simulate, "scan", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert generate.main([str(tmp_path), *SMALL]) == 2
    assert "disk is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_killed_run_leaves_no_data_set(tmp_path, how):
    command = [sys.executable, "generate.py", str(tmp_path), "-N", "4000000", "-T", "256"]
    # a shell starts what runs in its background with SIGINT ignored, and a child inherits that
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    while not any(path.stat().st_size > 10_000_000 for path in tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    _, err = process.communicate(timeout=900)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert b"Traceback" not in err
    assert [path for path in tmp_path.iterdir() if path.suffix == ".pt"] == []
    if how != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def test_help_is_quick():
    done = subprocess.run(
        [sys.executable, "generate.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--law" in done.stdout
    code = (  # what would take a second is not loaded
        "import sys, generate\n"
        "try: generate.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_default_size_takes_seconds_and_little_memory(tmp_path):
    # It reports the high-water mark of its own memory: what wait4 tells of a child begins with its parent's.
    code = (
        "import re, sys, generate; code = generate.main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds = time.monotonic() - started
    size = only_file(tmp_path).stat().st_size
    peak = int(done.stdout.split()[-1]) * 1024
    print(f"{seconds:.1f} s, file {size / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB = {peak / size:.2f} files")
    assert peak < 1.5 * size
    assert seconds < 60


@pytest.mark.slow
def test_records_over_4_gigabytes(tmp_path):
    """The zip64 form: more than 2^32 bytes in one record."""
    if shutil.disk_usage(tmp_path).free < 12e9:
        pytest.skip("needs 12 GB of disk")
    big = recipe(number=1_100_000, timestep=1000)
    write(big, tmp_path / "big.pt")
    data = torch.load(tmp_path / "big.pt", weights_only=True, mmap=True)
    mem, spike, _ = lif_reference(data["input"][-3:], 0.2)
    assert torch.equal(mem, data["mem"][-3:])
    assert torch.equal(spike, data["spike"][-3:].float())
    assert data["spike"].data_ptr() % 64 == 0
    os.unlink(tmp_path / "big.pt")
