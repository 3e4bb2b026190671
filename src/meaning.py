"""What the numbers of a network stand for: token ids and classes mean what the data it was trained on made of them.

Two data sets may give the same token another id, and then a network of the one reads nonsense in the other, of the
right shape and without an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.spike.adaptive import AdaptiveEmbedding
from sdn.errors import UserError

log = logging.getLogger(__name__)


def check_meaning(trained: Mapping[str, Any], facts: Mapping[str, Any], source: str | Path) -> None:
    """Refuse to judge the network of ``source`` by data whose tokens or classes are numbered otherwise, or to train it
    further on them; say where only their scale is another.

    Args:
        trained, facts: of the data it was trained on and of those at hand, see ``SequenceData.facts``; what one of them
            does not know is not compared.

    Raises:
        UserError: it names the first number that has two meanings.
    """
    for key, what in (("tokens", "token"), ("class_names", "class")):
        before, now = trained.get(key), facts.get(key)
        if before and now and (place := _first_difference(before, now)) is not None:
            there, here = (repr(names[place]) if place < len(names) else "nothing" for names in (before, now))
            raise UserError(
                f"{source} was trained where {what} {place} is {there}; in these data it is {here}, and every figure "
                "would be wrong; give it data that number them as it learnt them, or start a new run on these from its "
                "weights with train.pretrained_model_path"
            )
    before, now = trained.get("input_scale"), facts.get("input_scale")
    if before and now and before != now:
        log.warning("%s was trained with inputs scaled by %s; these data are scaled by %s", source, before, now)


def rows_by_token(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    trained: Sequence[str] | None,
    tokens: Sequence[str] | None,
    source: str | Path,
) -> dict[str, Tensor]:
    """``weights`` with the rows of token embeddings in the order of ``tokens``: a row goes to the token it was learnt
    for, and a token that the network has not met keeps the fresh row of ``module``.

    Args:
        weights: by name, of the network in ``source``, learnt with the tokens ``trained``.
        tokens: of the data at hand, by id; nothing is done where either is None.

    Raises:
        UserError: a language model, whose outputs are tokens too, or no token is known to both.
    """
    if trained is None or tokens is None or list(trained) == list(tokens):
        return dict(weights)
    if any(name in weights for name in _of_clusters(module)):
        raise UserError(
            f"the language model in {source} was trained with another vocabulary ({len(trained):,} tokens, here "
            f"{len(tokens):,}), which numbers its inputs and outputs; give it the same text and dataset settings"
        )
    row_of = {token: row for row, token in enumerate(trained)}
    known = [(row, row_of[token]) for row, token in enumerate(tokens) if token in row_of]
    if not known:
        raise UserError(
            f"{source} and these data have no token in common; leave its encoder out with "
            "train.ignore_pretrained_layers=[encoder]"
        )
    placed = dict(weights)
    here, there = map(list, zip(*known, strict=True))
    for name, part in module.named_modules():
        key = f"{name}.weight"
        given = weights.get(key)
        if not isinstance(part, nn.Embedding) or given is None:
            continue
        rows = part.weight.detach().clone()
        if (given.shape[0], *rows.shape) != (len(trained), len(tokens), *given.shape[1:]):
            continue  # not of tokens, or of another width, which is told where shapes are compared
        rows[here] = given[there].to(rows)
        placed[key] = rows
        log.info("%s: rows of %s by token, %d of %d known to it", source, key, len(known), len(tokens))
    return placed


def _of_clusters(module: nn.Module) -> list[str]:
    parts = ((name, part) for name, part in module.named_modules() if isinstance(part, AdaptiveEmbedding))
    return [f"{name}.{inner}" for name, part in parts for inner, _ in part.named_parameters()]


def _first_difference(before: Sequence[str], now: Sequence[str]) -> int | None:
    return next((place for place, (a, b) in enumerate(zip_longest(before, now)) if a != b), None)
