"""Two machines: network namespaces of this one."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
WORDS = (
    "model.dropout=0.0",
    "model.norm=layer",
    "loader.eval_batch_size=49",
    "trainer.strategy=ddp",
    "trainer.num_nodes=2",
)
pytestmark = pytest.mark.slow


def ip(*words: str) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0
    return False


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable."""
    names = tuple(f"sdn{os.getpid()}{end}" for end in "ab")
    try:
        for name in names:
            if not ip("netns", "add", name):
                pytest.skip("network namespaces can only be made by root, with iproute2")
        cable = "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1]
        if not ip(*cable):
            pytest.skip("this kernel has no veth")
        for number, name in enumerate(names, start=1):
            for words in (("addr", "add", f"10.77.0.{number}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                assert ip("-n", name, *words)
            assert ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def start(
    node: str, number: int, words: list[str], folder: Path, env: dict[str, str], torchrun: bool
) -> subprocess.Popen:
    place = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29511", "NODE_RANK": str(number), "GLOO_SOCKET_IFNAME": "eth0"}
    line = ["ip", "netns", "exec", node, sys.executable]
    if torchrun:
        line += ["-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={number}", "--nproc_per_node=1"]
        line += ["--master_addr=10.77.0.1", "--master_port=29511"]
    return subprocess.Popen(
        [*line, str(ROOT / "train.py"), *words],
        cwd=folder,
        env=env | place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def curve(run: Path, name: str) -> list[float]:
    rows = csv.DictReader((run / "logs/metrics.csv").open())
    return [float(row[name]) for row in rows if row[name]]


def test_two_nodes_train_like_one_process(nodes, environment, command, tiny, tmp_path: Path):
    words = [word for word in tiny if "batch_size" not in word] + ["trainer.max_epochs=3"]
    two = [*words, *WORDS, "loader.batch_size=50", "hydra.run.dir=two"]
    started = [start(node, i, two, tmp_path, environment, torchrun=True) for i, node in enumerate(nodes)]
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 0, out
    one = command("train.py", *words, *WORDS[:3], "loader.batch_size=100", "hydra.run.dir=one")
    assert one.returncode == 0, one.stderr
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss"):
        assert curve(tmp_path / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-3, abs=1e-5), name
    weights = [torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("one", "two")]
    for name, value in weights[0]["state_dict"].items():
        torch.testing.assert_close(weights[1]["state_dict"][name], value, rtol=1e-3, atol=1e-4)


def kill(node: str) -> None:
    """All processes of a node end at once."""
    pids = subprocess.run(["ip", "netns", "pids", node], capture_output=True, text=True, check=True).stdout.split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def sentence(out: str) -> str:
    """What our door said; torchrun adds a report of its own about each process that fails."""
    said = [line for line in out.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, out
    assert "Traceback" not in out.partition(said[0])[0], out
    assert "another process of this run ended or does not answer any more" in said[0]
    return said[0]


def test_a_node_that_dies_ends_the_other_and_both_go_on_from_its_checkpoint(nodes, environment, tiny, tmp_path: Path):
    words = [*tiny, *WORDS, "loader.batch_size=50", "trainer.max_epochs=12", "callbacks.last.every_n_train_steps=5"]

    def both(run: str, *more: str) -> list[subprocess.Popen]:
        line = [*words, f"hydra.run.dir={run}", *more]
        return [start(node, i, line, tmp_path, environment, torchrun=True) for i, node in enumerate(nodes)]

    first, second = both("broken")
    while not (tmp_path / "broken/checkpoints/last.ckpt").exists() and first.poll() is None:
        time.sleep(0.02)
    kill(nodes[1])
    out, _ = first.communicate()
    second.communicate()
    assert first.returncode not in (0, None), out
    kept = re.search(r"go on with train\.ckpt=(\S+)", sentence(out))[1]
    for run in (("whole",), ("resumed", f"train.ckpt={kept}")):
        for process in both(*run):
            out, _ = process.communicate()
            assert process.returncode == 0, out
    whole, resumed = (
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("whole", "resumed")
    )
    assert torch.load(kept, weights_only=True)["global_step"] < whole["global_step"] == resumed["global_step"]
    assert all(torch.equal(whole["state_dict"][name], resumed["state_dict"][name]) for name in whole["state_dict"])


def test_a_cable_that_is_pulled_ends_both(nodes, environment, tiny, tmp_path: Path):
    """Nothing closes the connection here: a node only stops to hear of the other. Started without torchrun."""
    words = [*tiny, *WORDS, "trainer.max_epochs=3000", "train.peer_timeout=1", "hydra.run.dir=run"]
    started = [start(node, i, words, tmp_path, environment, torchrun=False) for i, node in enumerate(nodes)]
    last = tmp_path / "run/checkpoints/last.ckpt"
    while not last.exists() and started[0].poll() is None:
        time.sleep(0.02)
    assert ip("-n", nodes[1], "link", "set", "eth0", "down")
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 2, out
        assert f"go on with train.ckpt={last}" in sentence(out)
