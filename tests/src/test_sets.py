"""Padding, splits and what a data family tells of itself, against naive forms."""

from __future__ import annotations

import pytest
import torch

from models.spike.lengths import real_steps
from src.dataloaders.digits import Digits
from src.dataloaders.sets import NO_CLASS, RaggedSet, TensorSet, collate_ragged
from src.dataloaders.splits import stratified_split


def test_real_steps_are_those_before_the_end():
    lengths = torch.tensor([3, 1, 5])
    expected = [[t < n for t in range(5)] for n in (3, 1, 5)]
    assert real_steps(lengths, 5).tolist() == expected
    assert real_steps(lengths, 4).tolist() == [row[:4] for row in expected]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float64, torch.bool])
def test_targets_are_classes_or_numbers(dtype: torch.dtype):
    y = torch.tensor([1, 0, 1]).to(dtype)
    for made in (TensorSet(torch.zeros(3, 2), y), RaggedSet(torch.zeros(6), torch.tensor([1, 3, 6]), y)):
        assert made.y.dtype == (torch.float32 if dtype.is_floating_point else torch.int64)
        assert made.y.tolist() == [1, 0, 1]


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("numbers", [False, True])
def test_ragged_batches_hold_each_sequence_and_its_targets_and_nothing_else(channels: int | None, numbers: bool):
    lengths = [4, 1, 6, 3]
    flat = torch.randint(1, 200, (14,)).to(torch.uint8) if channels is None else torch.randn(14, channels).double()
    y = torch.randn(14, 2) if numbers else torch.randint(9, (14,))
    data = RaggedSet(flat, torch.tensor(lengths).cumsum(0), y, per_step=True)
    assert data.lengths().tolist() == lengths
    batch, y_batch, z = collate_ragged(data.__getitems__([2, 0, 1]))
    assert batch.dtype == (torch.int64 if channels is None else torch.float32)
    assert z["lengths"].tolist() == [6, 4, 1]
    for row, (start, stop) in enumerate([(5, 11), (0, 4), (4, 5)]):
        n = stop - start
        torch.testing.assert_close(batch[row, :n], flat[start:stop].to(batch.dtype))
        torch.testing.assert_close(y_batch[row, :n], y[start:stop])
        assert (batch[row, n:] == 0).all()
        assert (y_batch[row, n:] == (0 if numbers else NO_CLASS)).all()


def test_numbers_of_a_sequence_are_stacked_whatever_its_length():
    data = RaggedSet(torch.arange(6), torch.tensor([1, 3, 6]), torch.randn(3, 2), transform=lambda x: x + 1)
    x, y, _ = collate_ragged(data.__getitems__([0, 2]))
    assert x.tolist() == [[1, 0, 0], [4, 5, 6]]
    assert torch.equal(y, data.y[[0, 2]])


@pytest.mark.parametrize("sizes", [[50, 50], [97, 2, 1], [4] * 30, [1, 1, 40]])
def test_every_part_has_its_share_of_every_class(sizes: list[int]):
    classes = torch.cat([torch.full((n,), label) for label, n in enumerate(sizes)])
    parts = stratified_split(classes, [0.1, 0.2], seed=3)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(classes)))
    for label, n in enumerate(sizes):
        train, val, test = ((classes[part] == label).sum().item() for part in parts)
        assert train >= 1
        assert abs(val - 0.1 * n) <= 1
        assert abs(test - 0.2 * n) <= 1
    if sizes == [4] * 30:  # single classes are too small for a share of their own, all together are not
        assert [len(part) for part in parts] == [84, 12, 24]
    assert all(torch.equal(a, b) for a, b in zip(parts, stratified_split(classes, [0.1, 0.2], seed=3), strict=True))
    assert not torch.equal(parts[0], stratified_split(classes, [0.1, 0.2], seed=4)[0])


def test_a_family_tells_what_its_users_need():
    facts = Digits().facts()
    assert facts == {"class_names": list("0123456789"), "input_scale": {"shift": [0.0], "scale": [1 / 16]}}
