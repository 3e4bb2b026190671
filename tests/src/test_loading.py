"""The order of the data: shards, exact evaluation, resumption."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
import torch
from torch.utils.data import Subset

from sdn.errors import UserError
from src.dataloaders.aan import PairSet
from src.dataloaders.base import RaggedSet, TensorSet, collate_tokens, random_split
from src.dataloaders.loading import BatchOrder, LoaderOptions, Shard, lengths_of, make_loader


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


def bucketed(world: int = 1, n: int = 103, size: int = 4, **options: object) -> list[BatchOrder]:
    options = {"shuffle": True, "drop_last": False, "bucket": 5, "lengths": ragged(n)} | options
    return [BatchOrder(n, size, seed=5, shard=Shard(rank, world), **options) for rank in range(world)]


def ragged(n: int) -> torch.Tensor:
    return torch.randint(1, 500, (n,), generator=torch.Generator().manual_seed(0))


def test_a_pool_of_batches_is_sorted_by_length():
    plain, by_length = bucketed(bucket=0)[0], bucketed()[0]
    ours, theirs = list(by_length), list(plain)
    assert ours[-1] == theirs[-1]  # the incomplete batch is the same
    lengths = ragged(103)
    for first in range(0, 25, 5):
        pool, before = ours[first : first + 5], theirs[first : first + 5]
        assert sorted(chain(*pool)) == sorted(chain(*before))
        spans = sorted((int(lengths[batch].min()), int(lengths[batch].max())) for batch in pool)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert by_length.padding(lengths) < 0.5 * plain.padding(lengths)


def test_padding_counts_what_the_batches_hold():
    order, lengths = bucketed(shuffle=False, bucket=0, n=7)[0], torch.tensor([3, 1, 2, 2, 9, 9, 0])
    assert order.padding(lengths) == pytest.approx(1 - 26 / (3 * 4 + 9 * 3))


@pytest.mark.parametrize("shuffle", [True, False])
def test_buckets_keep_what_orders_promise(shuffle: bool):
    one, (a, b) = bucketed(size=8, shuffle=shuffle)[0], bucketed(2, size=4, shuffle=shuffle)
    joined = [x + y for x, y in zip(a, b, strict=True)]
    assert [[i for i in batch if i >= 0] for batch in joined] == list(one)
    assert sorted(i for batch in joined for i in batch if i >= 0) == list(range(103))
    assert list(one) == list(one)
    whole = list(one)
    one.start = 7
    assert list(one) == whole[7:]
    if shuffle:
        one.set_epoch(1)
        assert list(one) != whole


def test_buckets_need_lengths():
    data = TensorSet(torch.zeros(9), torch.zeros(9))
    with pytest.raises(UserError, match=r"tells none; set loader\.bucket=0"):
        make_loader(data, lambda b: b, LoaderOptions(batch_size=2, bucket=4), Shard(), True)
    with pytest.raises(UserError, match=r"loader\.bucket"):
        LoaderOptions(bucket=-1)


def test_lengths_of_parts_and_pairs():
    texts = RaggedSet(torch.arange(6), torch.tensor([1, 3, 6]), torch.zeros(3))
    assert lengths_of(Subset(texts, [2, 0])).tolist() == [3, 1]
    pairs = PairSet(texts, torch.tensor([[0, 1], [2, 1]], dtype=torch.int32), torch.zeros(2))
    assert lengths_of(pairs).tolist() == [2, 3]
