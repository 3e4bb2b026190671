"""Which samples train, which choose and which test: random partitions that depend on a seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdn.errors import UserError


def random_split(n: int, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Indices of a random partition of ``range(n)``, the one ``torch.utils.data.random_split`` makes for ``seed``."""
    if sum(sizes) != n:
        raise ValueError(f"parts {list(sizes)} do not add up to {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return list(order.split(list(sizes)))


SPLITS = ("train", "val", "test")
_WORDS = {
    "train": 0,
    "training": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "dev": 1,
    "test": 2,
    "testing": 2,
}


def split_named(word: object) -> int | None:
    """0, 1 or 2 for a word for training, validation or test ("valid", "Dev", ...), None for any other."""
    return _WORDS.get(str(word).strip().lower())


def divide(
    given: Tensor | None, classes: Tensor, val_split: float, test_split: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the samples of ``train``, ``val`` and ``test``, each part in random order.

    Args:
        given: the part of each sample (n,), 0, 1 or 2, or None where nobody said. A part that nobody was given to is
            drawn from the training samples, an equal share of each class.
        classes: class of each sample (n,), or zeros.

    Raises:
        UserError: a part is empty.
    """
    part = torch.zeros(len(classes), dtype=torch.int64) if given is None else given.long()
    absent = [number for number in (1, 2) if not (part == number).any()]
    training = torch.nonzero(part == 0).flatten()
    drawn = stratified_split(classes[training], [(val_split, test_split)[number - 1] for number in absent], seed)
    part = part.clone()
    for number, indices in zip(absent, drawn[1:], strict=True):
        part[training[indices]] = number
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    parts = tuple(order[part[order] == number] for number in range(3))
    for name, indices in zip(SPLITS, parts, strict=True):
        if not len(indices):
            how = "" if name == "train" else f"; raise dataset.{name}_split or say which samples they are"
            raise UserError(f"of {len(classes)} samples none is left for {name}{how}")
    return parts


def check_shares(**shares: float) -> None:
    """Refuse shares that are none or leave nothing to train on.

    Raises:
        UserError: with the names they were given by.
    """
    names = " and ".join(f"dataset.{name}" for name in shares)
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise UserError(
            f"{names} are shares of the samples, 0 or more, and leave some to train on; not "
            f"{' and '.join(f'{share:g}' for share in shares.values())}"
        )


def stratified_split(classes: Tensor, shares: Sequence[float], seed: int) -> list[Tensor]:
    """Indices (in random order) of the samples to train on, and of one part for each of ``shares``.

    Every part has the same share of each class as far as whole samples allow, and every class with a sample left keeps
    one to train on. ``classes (n,)``; give zeros where there are none and the split is plainly random.
    """
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    part = torch.zeros(len(classes), dtype=torch.int64)
    seen = 0
    for label in classes.unique():
        members = order[classes[order] == label]
        start, room = 0, len(members) - 1
        for number, share in enumerate(shares, start=1):
            # rounding the running sum keeps the whole part at its share, however many small classes there are
            wanted = round((seen + len(members)) * share) - round(seen * share)
            stop = min(start + wanted, room)
            part[members[start:stop]] = number
            start = stop
        seen += len(members)
    return [order[part[order] == number] for number in range(len(shares) + 1)]
