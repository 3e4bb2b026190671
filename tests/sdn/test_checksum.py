"""Checksums of files: any changed bit is noticed or changes nothing, and files without one still load."""

import random

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sdn.checksum import KEY, checksum, damaged_archive, load_tensors, save_tensors, seal_archive
from sdn.errors import UserError

TENSORS = {
    "a": torch.randn(5, 3),
    "b": torch.arange(7, dtype=torch.int8),
    "c": torch.zeros(0, 4),
    "d": torch.tensor(1.5, dtype=torch.bfloat16),
    "e": torch.tensor([True, False]),
}
HEADER = {"format": "test", "facts": '{"tau": 0.125}'}


def flips(raw: bytes, n: int = 400) -> list[bytes]:
    """``raw`` with one bit changed, at ``n`` random places."""
    places = random.Random(0).sample(range(len(raw) * 8), n)
    changed = []
    for place in places:
        copy = bytearray(raw)
        copy[place // 8] ^= 1 << place % 8
        changed.append(bytes(copy))
    return changed


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_round_trip_whatever_the_layout(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS | {"a": TENSORS["a"].T.contiguous().T}, HEADER)
    tensors, header = load_tensors(path)
    assert same(tensors, TENSORS)
    assert header == HEADER | {KEY: checksum(TENSORS, HEADER)}


def test_every_flipped_bit_of_a_tensor_file_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, HEADER)
    for raw in flips(path.read_bytes()):
        path.write_bytes(raw)
        try:
            tensors, header = load_tensors(path)
        except (UserError, SafetensorError):
            continue
        assert KEY not in header  # the flip made it a file without a checksum, and nothing else
        assert same(tensors, TENSORS)


def test_every_flipped_bit_of_a_sealed_archive_is_noticed(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"weights": TENSORS["a"], "config": {"tau": 0.125}}, path)
    assert damaged_archive(path) is None
    seal_archive(path)
    assert damaged_archive(path) is None
    for mmap in (False, True):
        assert torch.equal(torch.load(path, weights_only=True, mmap=mmap)["weights"], TENSORS["a"])
    unseen = 0
    for raw in flips(path.read_bytes()):
        path.write_bytes(raw)
        if damaged_archive(path) is None:
            unseen += 1
            assert torch.equal(torch.load(path, weights_only=True)["weights"], TENSORS["a"])
    assert unseen <= 4  # in the length of the seal itself: the records are compared instead


def test_files_without_a_checksum_pass(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", HEADER)
    assert same(load_tensors(tmp_path / "x.safetensors")[0], TENSORS)
    save_file(TENSORS, tmp_path / "y.safetensors")
    assert load_tensors(tmp_path / "y.safetensors")[1] == {}


@pytest.mark.parametrize("what", ["tensor", "name", "header", "shape"])
def test_changed_content_under_the_old_checksum_is_refused(tmp_path, what):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, HEADER)
    header = load_tensors(path)[1]
    tensors = load_file(path)
    if what == "tensor":
        tensors["b"] = tensors["b"] + 1
    elif what == "name":
        tensors["z"] = tensors.pop("b")
    elif what == "shape":
        tensors["a"] = tensors["a"].reshape(3, 5)
    else:
        header["facts"] = '{"tau": 0.25}'
    save_file(tensors, path, header)
    with pytest.raises(UserError, match="checksum"):
        load_tensors(path)
