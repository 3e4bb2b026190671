"""The order of the data: shards, exact evaluation, resumption."""

from __future__ import annotations

import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.base import TensorSet, collate_tokens, random_split
from src.dataloaders.loading import BatchOrder, LoaderOptions, Shard, make_loader


def orders(world: int, n: int = 23, size: int = 2, **options: bool) -> list[list[list[int]]]:
    options = {"shuffle": True, "drop_last": True} | options
    return [list(BatchOrder(n, size, seed=5, shard=Shard(rank, world), **options)) for rank in range(world)]


def loader(**options: object):
    data = TensorSet(torch.arange(10.0).unsqueeze(-1), torch.arange(10))
    return make_loader(data, lambda batch: (*batch, {}), LoaderOptions(batch_size=3, **options), Shard(), True, seed=1)


def seen(batches: object) -> list[list[int]]:
    return [y.tolist() for _, y, _ in batches]


def test_two_processes_see_what_one_sees_with_twice_the_batch():
    one, (a, b) = orders(1, size=4)[0], orders(2, size=2)
    assert [x + y for x, y in zip(a, b, strict=True)] == one


@pytest.mark.parametrize("n", [1, 7, 8, 9, 12])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_visits_every_sample_once_and_keeps_ranks_in_step(n: int, world: int):
    ranks = orders(world, n, shuffle=False, drop_last=False)
    assert len({len(rank) for rank in ranks}) == 1
    counted = [i for rank in ranks for batch in rank for i in batch if i >= 0]
    assert sorted(counted) == list(range(n))
    assert all(len(a) == len(b) for a, b in zip(ranks[0], ranks[-1], strict=True))


def test_repeated_samples_weigh_nothing():
    data = TensorSet(torch.arange(3.0), torch.arange(3))
    options = LoaderOptions(batch_size=2)
    last = make_loader(data, lambda b: (*b, {}), options, Shard(1, 2), train=False)
    ((_, y, z),) = list(last)
    assert y.tolist() == [2, 0]
    assert z["weight"].tolist() == [1, 0]


def test_epochs_differ_and_repeat():
    order = BatchOrder(100, 10, True, True, 1, Shard())
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    order.set_epoch(0)
    assert first != second
    assert list(order) == first


@pytest.mark.parametrize("workers", [0, 1])
def test_resumes_in_the_middle_of_an_epoch(workers: int):
    whole = loader(num_workers=workers)
    whole.order.set_epoch(3)
    expected = seen(whole)

    broken = loader(num_workers=workers)
    broken.order.set_epoch(3)
    batches = iter(broken)
    head = [next(batches)[1].tolist()]
    state = broken.state_dict()

    resumed = loader(num_workers=workers)
    resumed.load_state_dict(state)
    resumed.order.set_epoch(3)  # as Lightning does
    assert head + seen(resumed) == expected
    assert len(seen(resumed)) == len(expected)  # and the next time from the start


def test_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    seen(loader())
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_samples_for_a_batch():
    data = TensorSet(torch.zeros(2), torch.zeros(2))
    with pytest.raises(UserError, match="do not fill one batch of 50"):
        make_loader(data, lambda b: b, LoaderOptions(), Shard(), True)


def test_split_is_torchs():
    from torch.utils.data import random_split as truth

    ours = random_split(20, [15, 5], 42)
    theirs = truth(range(20), [15, 5], torch.Generator().manual_seed(42))
    assert [part.tolist() for part in ours] == [list(part.indices) for part in theirs]


def test_padding():
    batch = [
        (torch.tensor([3, 4], dtype=torch.uint8), torch.tensor(1)),
        (torch.tensor([5], dtype=torch.uint8), torch.tensor(0)),
    ]
    x, y, z = collate_tokens(batch)
    assert x.tolist() == [[3, 4], [5, 0]]
    assert x.dtype == torch.long
    assert y.tolist() == [1, 0]
    assert z["lengths"].tolist() == [2, 1]
