"""ListOps as in Long Range Arena: seeded, compiled, 100,000 labelled expressions in seconds.

The distribution (the defaults of LRA's published task, after Nangia and Bowman 2018):

- A node at depth d (the root has d = 1) is an operator with probability 1/4 if d < ``max_depth``, else a digit.
- A digit is uniform in 0..9. An operator is uniform in MIN, MAX, MED, SM and has uniformly 2..``max_args`` arguments,
  each an independent node at depth d + 1.
- The value of MED is the median rounded down (the mean of the two middle values, floored, for an even count);
  SM is the sum modulo 10.
- The length of an expression counts every digit, operator and closing bracket (round brackets of LRA's text form are
  not counted). Only expressions with ``min_length`` < length < ``max_length`` are kept, and each only once.

Written as text, the expression MAX(2, MIN(4, 7)) is ``[MAX 2 [MIN 4 7 ] ]``: eight tokens. Here it is a row of symbols
(uint8): 0..9 the digits, 10..13 the operators in the order of ``OPERATORS``, 14 the closing bracket.
Candidate number c is a pure function of (seed, c), and the data set is the accepted candidates in the order of c.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from tqdm import tqdm

from sdn.errors import UserError

from .streams import below, stream, uniform

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
CLOSE = 14
SYMBOLS = (*(str(digit) for digit in range(10)), *OPERATORS, "X")
"""Spelling of each symbol after LRA's preprocessing (``]`` is written ``X``)."""

_OPERATOR_PROBABILITY = 0.25
_BLOCK = 1 << 14
_LONGEST = 1_000_000


@dataclass(frozen=True)
class ListOpsSettings:
    """What defines the distribution; the defaults are LRA's."""

    max_depth: int = 10
    max_args: int = 10
    min_length: int = 500
    max_length: int = 2000

    def __post_init__(self) -> None:
        if self.max_depth < 2 or self.max_args < 2:
            raise UserError("ListOps needs max_depth >= 2 and max_args >= 2")
        if not 0 <= self.min_length < self.max_length - 1:
            raise UserError(
                f"ListOps keeps lengths with min_length < length < max_length, "
                f"but none lies between {self.min_length} and {self.max_length}"
            )
        if self.max_length > _LONGEST:
            raise UserError(f"ListOps keeps lengths up to {_LONGEST:,}, not {self.max_length:,}")


@dataclass(frozen=True)
class Expressions:
    """n labelled expressions of any length, end to end.

    Attributes:
        symbols: (total,) uint8, the symbols of all expressions.
        offsets: (n + 1,) int64; expression i is ``symbols[offsets[i] : offsets[i + 1]]``.
        values: (n,) uint8, the value of each expression, 0..9.
    """

    symbols: np.ndarray
    offsets: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.symbols[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def part(self, start: int, stop: int) -> Expressions:
        """Expressions ``start`` to ``stop - 1``, sharing memory."""
        first, last = self.offsets[start], self.offsets[stop]
        return Expressions(self.symbols[first:last], self.offsets[start : stop + 1] - first, self.values[start:stop])


def generate(
    n: int,
    seed: int = 0,
    settings: ListOpsSettings | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Expressions:
    """The first ``n`` distinct expressions of the stream ``seed``, the same for any number of ``workers`` (threads).

    Raises:
        UserError: the settings leave (almost) nothing to accept, or too few distinct expressions.
    """
    settings = settings or ListOpsSettings()
    pieces: list[np.ndarray] = []
    values: list[int] = []
    seen: set[bytes] = set()
    idle_blocks = 0
    with tqdm(total=n, desc="ListOps", unit="expr", unit_scale=True, disable=None if progress else True) as bar:
        blocks = _blocks(seed, settings, workers or os.cpu_count() or 1)
        for symbols, offsets, block_values in blocks:
            before = len(values)
            for i, value in enumerate(block_values):
                expression = symbols[offsets[i] : offsets[i + 1]]
                digest = hashlib.blake2b(expression, digest_size=16).digest()
                if digest not in seen and len(values) < n:
                    seen.add(digest)
                    pieces.append(expression)
                    values.append(value)
            bar.update(len(values) - before)
            if len(values) == n:
                blocks.close()
                break
            idle_blocks = 0 if len(values) > before else idle_blocks + 1
            if idle_blocks == 100:
                raise UserError(
                    f"ListOps with {settings} gave no new expression in {100 * _BLOCK:,} draws "
                    f"after {len(values):,} of {n:,}; widen the range of lengths or raise max_depth or max_args"
                )
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    symbols = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
    return Expressions(symbols, offsets, np.array(values, np.uint8))


def _blocks(seed: int, settings: ListOpsSettings, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Accepted expressions of blocks 0, 1, 2, ... of candidates, in order, computed a little ahead by threads."""
    limits = (settings.max_depth, settings.max_args, settings.min_length, settings.max_length)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque = deque()
        block = 0
        try:
            while True:
                while len(pending) < 2 * workers:
                    pending.append(pool.submit(_draw_block, seed, block * _BLOCK, _BLOCK, *limits))
                    block += 1
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@njit(cache=True, nogil=True)
def _draw_block(
    seed: int, first: int, count: int, max_depth: int, max_args: int, min_length: int, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    symbols = np.empty(64 * max_length, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    values = np.empty(count, np.uint8)
    waiting = np.empty(max_depth, np.int64)
    operators = np.empty(max_depth, np.int64)
    counts = np.empty((max_depth, 10), np.int64)
    accepted = 0
    used = 0
    for candidate in range(first, first + count):
        if used + max_length > symbols.size:
            larger = np.empty(2 * symbols.size, np.uint8)
            larger[:used] = symbols[:used]
            symbols = larger
        state = stream(seed, candidate)
        length, value = _draw(state, max_depth, max_args, max_length, symbols[used:], waiting, operators, counts)
        if length > min_length:
            used += length
            values[accepted] = value
            accepted += 1
            offsets[accepted] = used
    return symbols[:used].copy(), offsets[: accepted + 1].copy(), values[:accepted].copy()


@njit(cache=True, nogil=True)
def _draw(
    state: np.ndarray,
    max_depth: int,
    max_args: int,
    max_length: int,
    out: np.ndarray,
    waiting: np.ndarray,
    operators: np.ndarray,
    counts: np.ndarray,
) -> tuple[int, int]:
    """Draw one tree depth first into ``out``, evaluating as it goes: (length, value), or (0, 0) if it grows too long.

    Each open operator, by depth, keeps how many arguments it ``waiting`` s for and how often each digit came
    (``counts``): all four operators are functions of these counts.
    """
    depth = 0  # open operators above the node drawn next
    length = 0  # tokens written plus closing brackets owed
    position = 0
    while True:
        if depth + 1 < max_depth and uniform(state) < _OPERATOR_PROBABILITY:
            length += 2
            if length >= max_length:
                return 0, 0
            operator = below(state, 4)
            out[position] = 10 + operator
            position += 1
            operators[depth] = operator
            waiting[depth] = 2 + below(state, max_args - 1)
            counts[depth, :] = 0
            depth += 1
            continue
        length += 1
        if length >= max_length:
            return 0, 0
        value = below(state, 10)
        out[position] = value
        position += 1
        while depth > 0:
            counts[depth - 1, value] += 1
            waiting[depth - 1] -= 1
            if waiting[depth - 1] > 0:
                break
            depth -= 1
            value = _apply(operators[depth], counts[depth])
            out[position] = CLOSE
            position += 1
        if depth == 0:
            return position, value


@njit(cache=True, nogil=True)
def _apply(operator: int, counts: np.ndarray) -> int:
    """Value of an operator on digits given by how often each occurs."""
    if operator == 0:
        digit = 0
        while counts[digit] == 0:
            digit += 1
        return digit
    if operator == 1:
        digit = 9
        while counts[digit] == 0:
            digit -= 1
        return digit
    if operator == 2:
        total = counts.sum()
        return (_ranked(counts, (total - 1) // 2) + _ranked(counts, total // 2)) // 2
    weighted = 0
    for digit in range(10):
        weighted += digit * counts[digit]
    return weighted % 10


@njit(cache=True, nogil=True)
def _ranked(counts: np.ndarray, rank: int) -> int:
    """The digit at position ``rank`` (from 0) of the sorted list."""
    digit = 0
    below_digit = counts[0]
    while below_digit <= rank:
        digit += 1
        below_digit += counts[digit]
    return digit
