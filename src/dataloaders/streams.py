"""Random streams for the compiled generators: sample number i is a pure function of (seed, i).

So a generated data set does not depend on the number of workers, on block sizes, on where an interrupted run was
resumed, or on the version of NumPy. The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a 64-bit counter
with an odd increment, mixed by two multiply-xorshift rounds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@njit(cache=True, nogil=True, inline="always")
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def stream(seed: int, index: int) -> np.ndarray:
    """State (1,) uint64 of the stream of sample ``index``; seed and index are mixed, so neighbours share nothing."""
    state = np.empty(1, np.uint64)
    state[0] = _mix(_mix(np.uint64(seed) + _GOLDEN) ^ (np.uint64(index) * _GOLDEN + _MIX_2))
    return state


@njit(cache=True, nogil=True)
def uniform(state: np.ndarray) -> float:
    """Next number in [0, 1) with 53 random bits."""
    state[0] += _GOLDEN
    return float(_mix(state[0]) >> np.uint64(11)) * _TO_UNIT


@njit(cache=True, nogil=True)
def below(state: np.ndarray, n: int) -> int:
    """Next integer in {0, ..., n - 1}; the bias is below n / 2**53."""
    return int(uniform(state) * n)
