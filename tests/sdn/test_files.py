"""Atomic files, locks that die with their process, checksums, and what a file system refuses in one sentence."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdn import disk, files, lock
from sdn.checksum import checksum, damaged, damaged_archive, sealed
from sdn.errors import UserError, door
from sdn.files import atomic_path, remove_parts, write_text

ROOT = Path(__file__).resolve().parents[2]
BIG = {"x": torch.zeros(200_000)}
WRITERS = {
    "text": lambda path: path.write_text("x" * 800_000),
    "torch.save": lambda path: torch.save(BIG, path),
    "torch.save to a file": lambda path: torch.save(BIG, path.open("wb")),
    "safetensors": lambda path: save_file(BIG, path),
}


@pytest.fixture
def small_limit():
    """No file may grow over 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_is_one_sentence_and_leaves_the_old_file(tmp_path, small_limit, name):
    target = tmp_path / "file"
    target.write_text("old")
    words = rf"cannot write {target}: the file would be larger than allowed"
    with pytest.raises(UserError, match=words), atomic_path(target) as temporary:
        WRITERS[name](temporary)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folders_and_names_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, words in (
        (tmp_path / "file/x", "is a file, not a folder|in the way"),
        (tmp_path / ("n" * 300), "name is too long"),
        (tmp_path / "folder", "it is a folder"),
        (Path("/proc/nothing/x"), "cannot write to /proc/nothing"),
    ):
        with pytest.raises(UserError, match=words):
            write_text(path, "x")
    write_text(tmp_path / ("n" * 250), "x")  # the temporary name is no longer than the name itself
    assert len(list(tmp_path.iterdir())) == 3


def test_an_error_of_the_block_is_its_own(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        (tmp_path / "elsewhere/missing").read_text()
    with pytest.raises(RuntimeError, match="mine"), atomic_path(tmp_path / "x"):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


def test_parts_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path):
    code = (
        "import sys, time; from sdn.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('half'); print(path, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    part = Path(process.stdout.readline().strip())
    assert part.parent == tmp_path
    assert remove_parts(tmp_path) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.exists()
    files._swept.discard(tmp_path)
    write_text(tmp_path / "y", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_a_folder_has_one_owner_until_it_dies(tmp_path):
    code = (
        "import sys, os, time; from pathlib import Path; from sdn.lock import owned\n"
        "with owned(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if not child: print('here', flush=True)\n"
        "    time.sleep(600 if child else 20)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    words = rf"{tmp_path} is in use by process {process.pid} on .*choose another folder"
    with pytest.raises(UserError, match=words), lock.owned(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock.owned(tmp_path):  # though a worker that it forked lives on
        assert str(os.getpid()) in (tmp_path / lock.LOCK).read_text()
        with pytest.raises(UserError, match="is in use"), lock.owned(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with lock.owned(tmp_path):
        pass


def test_checksum_sees_every_bit():
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(3), "c": torch.zeros(0), "d": torch.tensor(True)}
    header = {"tau": "0.125"}
    whole = sealed(tensors, header)
    assert not damaged(tensors, whole)
    assert not damaged(tensors, header)  # a file from before there were checksums
    assert damaged(tensors, whole | {"tau": "0.325"})
    for name in "abd":
        changed = {key: value.clone() for key, value in tensors.items()}
        changed[name].view(torch.uint8).view(-1)[0] ^= 1
        assert damaged(changed, whole)
    assert checksum(tensors) != checksum({**tensors, "a": tensors["a"].T.contiguous()})
    transposed = torch.randn(4, 5).T
    assert checksum({"a": transposed}) == checksum({"a": transposed.contiguous()})
    for dtype in (torch.bfloat16, torch.float16, torch.complex64):
        assert checksum({"a": torch.ones(2, dtype=dtype)})


def test_a_flipped_bit_in_an_archive_is_seen(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"weight": torch.randn(1000)}, path)
    assert damaged_archive(path) is None
    content = bytearray(path.read_bytes())
    content[2000] ^= 4
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # torch does not look
    assert "is not what was written" in damaged_archive(path)
    path.write_bytes(content[:1000])
    assert "no whole archive" in damaged_archive(path)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("do this"), 2, "error: do this"),
        (OSError(errno.ENOSPC, "No space left"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "denied", "/x/y"), 2, "cannot read or write /x/y: permission denied"),
        (OSError(errno.ENAMETOOLONG, "long", "z" * 300), 2, "name is too long"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), 2, "memory"),
        (KeyboardInterrupt(), 130, "stopped by the user"),
        (KeyboardInterrupt("go on there"), 130, "go on there"),
    ],
)
def test_the_door_says_one_line(capsys, error, status, words):
    def main():
        raise error

    assert door(main)() == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        door(main)()


def test_an_ascii_console_and_a_reader_that_left():
    code = "from sdn.errors import door; import sys; sys.exit(door(lambda: print('τ ± 1\\n' * 100000))())"
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("? ? 1")
    reader = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader.stdout.read(1)
    reader.stdout.close()
    err = reader.stderr.read().decode()
    assert reader.wait() == 141
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_why_nothing_can_be_written_is_found_out(tmp_path, small_limit):
    assert disk.probe(tmp_path) == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
