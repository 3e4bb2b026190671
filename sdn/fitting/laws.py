"""Input laws: the random currents a surrogate network is fitted to and judged on.

Every law is the same stationary process with its own parameters per sequence::

    I_t = level + scale * z_t,    z_0 = e_0,    z_t = rho * z_{t-1} + sqrt(1 - rho^2) * e_t,    e_t ~ N(0, 1)

so ``z`` has unit variance at every step, and ``level``, ``scale``, ``rho`` are numbers or one draw a sequence.
Currents are in units of the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import UserError

#: law -> (default mean, default std, its extra parameter and the default of that)
LAWS: dict[str, tuple[float, float, str | None, float]] = {
    "white": (0.0, 1.0, None, 0.0),
    "ar1": (0.0, 1.0, "rho", 0.99),
    "constant": (1.0, 0.5, "noise", 0.1),
    "mixture": (0.0, 1.0, None, 0.0),
}


@dataclass(frozen=True)
class Law:
    """One input law with its parameters; build it with :func:`make_law`.

    - ``white``: I ~ N(mean, std), independent in time.
    - ``ar1``: the same marginal law, neighbours correlated by ``extra`` = rho.
    - ``constant``: one level a sequence from U(mean - std, mean + std), plus white noise of deviation ``extra``.
    - ``mixture``: mean + std * y, where y is for half of the sequences white with deviation 1/4 to 4, for a quarter
      coloured with 1 - rho from 0.001 to 0.5, for a quarter a constant from 0.5 to 1.5 plus a little noise.
    """

    name: str
    mean: float
    std: float
    extra: float = 0.0

    @property
    def tag(self) -> str:
        """The law in a file name, e.g. ``N(0.0,1.0)`` or ``ar1(0.0,1.0,rho=0.99)``."""
        if self.name == "white":
            return f"N({self.mean},{self.std})"
        parameter = LAWS[self.name][2]
        return f"{self.name}({self.mean},{self.std}{f',{parameter}={self.extra}' if parameter else ''})"

    def facts(self) -> dict[str, float | str]:
        """The law by plain names, e.g. ``{"law": "ar1", "mean": 0.0, "std": 1.0, "rho": 0.99}``."""
        parameter = LAWS[self.name][2]
        facts: dict[str, float | str] = {"law": self.name, "mean": self.mean, "std": self.std}
        return facts | ({parameter: self.extra} if parameter else {})

    def draw(self, rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
        """``rows`` sequences ``(rows, length)``, float32, contiguous; ``rng`` alone decides their values."""
        level, scale, rho = self._parameters(rng, rows)
        if rho is None:
            z = rng.standard_normal((rows, length), dtype=np.float32)
        else:
            gain = np.sqrt(1 - rho * rho)
            z = rng.standard_normal((length, rows), dtype=np.float32)
            for t in range(1, length):
                z[t] = rho * z[t - 1] + gain * z[t]
            z = np.ascontiguousarray(z.T)
        z *= scale
        z += level
        return z

    def _parameters(
        self, rng: np.random.Generator, rows: int
    ) -> tuple[np.ndarray | np.float32, np.ndarray | np.float32, np.ndarray | None]:
        """``(level, scale, rho)``: scalars or a column ``(rows, 1)``; rho ``(rows,)``, or None for white noise."""
        mean, std, extra = np.float32(self.mean), np.float32(self.std), np.float32(self.extra)
        if self.name == "white":
            return mean, std, None
        if self.name == "ar1":
            return mean, std, np.full(rows, extra)
        if self.name == "constant":
            return mean + std * _uniform(rng, -1, 1, rows)[:, None], extra, None
        kind = rng.random(rows)
        white, coloured = kind < 0.5, (kind >= 0.5) & (kind < 0.75)
        level = np.where(coloured, _uniform(rng, -1, 1.5, rows), _uniform(rng, 0.5, 1.5, rows))
        level[white] = 0
        scale = np.where(coloured, _log_uniform(rng, 0.1, 2, rows), _log_uniform(rng, 0.001, 0.3, rows))
        scale[white] = _log_uniform(rng, 0.25, 4, rows)[white]
        rho = np.where(coloured, 1 - _log_uniform(rng, 0.001, 0.5, rows), np.float32(0))
        return mean + std * level[:, None], std * scale[:, None], rho


def make_law(
    name: str = "white",
    mean: float | None = None,
    std: float | None = None,
    rho: float | None = None,
    noise: float | None = None,
) -> Law:
    """Build a law; ``None`` takes the law's own default.

    Raises:
        UserError: unknown law, std < 0, |rho| >= 1, noise < 0, a number that is not finite, another law's parameter.
    """
    if name not in LAWS:
        raise UserError(f"unknown law {name!r}; choose one of {', '.join(LAWS)}")
    default_mean, default_std, parameter, default = LAWS[name]
    for given, value in (("rho", rho), ("noise", noise)):
        if value is not None and given != parameter:
            owner = next(law for law, row in LAWS.items() if row[2] == given)
            raise UserError(f"{given} belongs to the law {owner}; leave it out for the law {name}")
    extra = rho if rho is not None else noise
    law = Law(
        name,
        float(default_mean if mean is None else mean),
        float(default_std if std is None else std),
        float(default if extra is None else extra),
    )
    if not all(map(math.isfinite, (law.mean, law.std, law.extra))):
        raise UserError(f"the parameters of a law must be finite numbers, not {law.tag}")
    if law.std < 0:
        raise UserError(f"std is a standard deviation and cannot be negative, but is {law.std}")
    if parameter == "rho" and not -1 < law.extra < 1:
        raise UserError(f"rho is a correlation of neighbours and must lie between -1 and 1, not {law.extra}")
    if parameter == "noise" and law.extra < 0:
        raise UserError(f"noise is a standard deviation and cannot be negative, but is {law.extra}")
    return law


def _uniform(rng: np.random.Generator, low: float, high: float, rows: int) -> np.ndarray:
    return np.float32(low) + np.float32(high - low) * rng.random(rows, dtype=np.float32)


def _log_uniform(rng: np.random.Generator, low: float, high: float, rows: int) -> np.ndarray:
    return np.exp(_uniform(rng, math.log(low), math.log(high), rows))
