"""Side by side: the network, its dense twin, and both with 8-bit weights, by operations alone and with memory.

The dense twin has the same shape with dense activations in place of neurons. Where it ends, the break-even firing rate
begins: below it the network with spikes takes less energy by the same count, above it the twin does. The energy is a
straight line in the rate, so two points give it: E(r) = E(0) + r (E(1) - E(0)), r* = (E_twin - E(0)) / (E(1) - E(0)).
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from src.evaluation import energy, memory
from src.evaluation.energy import Constants, Shape

FORMS: dict[str, tuple[bool, bool]] = {
    "spiking": (True, False),
    "dense": (False, False),
    "spiking_int8": (True, True),
    "dense_int8": (False, True),
}
"""Name -> (spiking, 8-bit weights)."""
PAIRS = (("spiking", "dense"), ("spiking", "dense_int8"), ("spiking_int8", "dense_int8"))
MEANING = (
    "These are operations and bytes counted at the energies of 45 nm circuits, so a ratio between two columns holds "
    "for hardware that does skip a silent neuron's weights and keeps the network in the memory that is named.",
    "Nothing was measured on a device: control, clocks, leakage, the routing of spikes and the caches in between are "
    "left out, and on a CPU or GPU, where they dominate, the proxy without memory can be wrong by orders of magnitude.",
)
"""What the numbers mean, and what they do not."""


def side_by_side(shape: Shape, constants: Constants | None = None, level: str | None = None) -> dict[str, Any]:
    """Energy of one sequence by form, plain data.

    Args:
        level: of :data:`src.evaluation.memory.LEVELS`; None for the smallest that holds the network in 32 bits.

    Returns:
        by form ``mac``, ``ac``, ``mac8``, ``ac8``, ``joules`` (operations alone), ``bytes``, ``joules_with_memory`` and
        ``parts``; ``constants``; ``memory`` (level, pJ a byte, bytes that must fit); ``break_even`` rates, see
        :func:`break_even`.

    Raises:
        UserError: an unknown level or norm, a rate outside [0, 1].
    """
    constants, size = constants or Constants(), memory.footprint(shape)
    level = level or memory.smallest(size)
    forms = {name: _form(shape, constants, level, *form) for name, form in FORMS.items()}
    known = {"level": level, "pj_per_byte": memory.LEVELS[level], "network_bytes": size}
    return {**forms, "constants": asdict(constants), "memory": known, "break_even": break_even(shape, constants, level)}


def _form(shape: Shape, constants: Constants, level: str, spiking: bool, int8: bool) -> dict[str, Any]:
    operations = energy.count(shape, constants, spiking, int8)
    moved = memory.traffic(shape, spiking, int8)
    parts = []
    for done, bytes_ in zip(operations, moved, strict=True):
        joules = done.joules(constants)
        parts.append(
            {
                "part": done.part,
                **{kind: getattr(done, kind) for kind in ("mac", "ac", "mac8", "ac8")},
                "joules": joules,
                "bytes": bytes_.bytes,
                "joules_with_memory": joules + memory.joules(bytes_.bytes, level),
            }
        )
    everything, carried = energy.total(operations), memory.total(moved)
    return {
        **{kind: getattr(everything, kind) for kind in ("mac", "ac", "mac8", "ac8")},
        "joules": everything.joules(constants),
        "bytes": carried.bytes,
        "bytes_of": {kind: getattr(carried, kind) for kind in ("weights", "state", "activations")},
        "joules_with_memory": everything.joules(constants) + memory.joules(carried.bytes, level),
        "parts": parts,
    }


def break_even(shape: Shape, constants: Constants, level: str) -> list[dict[str, Any]]:
    """For each of :data:`PAIRS` the rate, the same in all layers, at which both take the same energy.

    ``operations`` and ``with_memory`` are rates; below 0 the twin takes less however silent the network is, above 1 the
    network with spikes does however busy it is.
    """
    rows = []
    for form, twin in PAIRS:
        row: dict[str, Any] = {"form": form, "twin": twin}
        for count, key in (("operations", "joules"), ("with_memory", "joules_with_memory")):
            silent, busy = (_form(_at(shape, rate), constants, level, *FORMS[form])[key] for rate in (0.0, 1.0))
            row[count] = (_form(shape, constants, level, *FORMS[twin])[key] - silent) / (busy - silent)
        rows.append(row)
    return rows


def _at(shape: Shape, rate: float) -> Shape:
    return replace(shape, rates=[rate] * len(shape.rates))
