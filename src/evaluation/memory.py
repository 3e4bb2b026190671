"""Bytes that a SpikingSSM moves, for every part of it, and their energy: the count the usual proxy leaves out.

One sample at a time in the recurrent form, so nothing is read once for many samples. Weights, state and activations all
lie in one memory, the level that is stated; what is summed up stays in registers until it is done. H channels, M modes
a channel and direction, d directions; numbers a step (a number has 4 bytes; a spike is one bit; with 8-bit weights the
weights of encoder, mix and decoder and what goes into them have one byte):

=============  ==========================================  ==================  =====================================
part           weights read                                state read, written  activations read and written
=============  ==========================================  ==================  =====================================
encoder        its weights, H biases; a look-up: a row H    0                   its input, H out
ssm state      4 d M H (A, C), 6 with a learnt B; D: H      4 d M H             H in, H out
neuron         0                                            2 H                 H in, H bits out
mix            spikes: r 2 H^2; dense: 2 H^2; 2 H biases    0                   H bits (dense: H) in, 2 H out
GLU            0                                            0                   2 H in, H out
norm           2 H                                          0                   H in, H out
residual       0                                            0                   2 H in, H out
decoder        its weights, C biases (whenever it decodes)  2 H (running mean)  H in a step; H in, C out when it decodes
=============  ==========================================  ==================  =====================================

Energy a byte is that of the level, a 64-bit access over eight (Horowitz, "Computing's energy problem", ISSCC 2014,
45 nm): 10, 20 and 100 pJ for caches of 8 KB, 32 KB and 1 MB, and 1.3 to 2.6 nJ for DRAM, of which the middle is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdn.errors import UserError
from src.evaluation.energy import Shape

LEVELS: dict[str, float] = {"8KB": 10 / 8, "32KB": 20 / 8, "1MB": 100 / 8, "DRAM": 1950 / 8}
"""Picojoules a byte, by the memory that holds the network."""
_HOLDS = {"8KB": 2**13, "32KB": 2**15, "1MB": 2**20}
_FLOAT = 4


@dataclass(frozen=True)
class Traffic:
    """Bytes that one part moves over one sequence."""

    part: str
    weights: float = 0.0
    state: float = 0.0
    activations: float = 0.0

    @property
    def bytes(self) -> float:
        """All of them."""
        return self.weights + self.state + self.activations


def traffic(shape: Shape, spiking: bool = True, int8: bool = False) -> list[Traffic]:
    """Bytes of one sequence, part by part as :func:`src.evaluation.energy.count` has them."""
    H, L, F = shape.d_model, shape.length, _FLOAT
    W = 1 if int8 else F  # a weight of a linear part, and a number that goes into one
    modes = shape.d_state // 2 * (2 if shape.bidirectional else 1)
    bit = H / 8
    if shape.encoder_weights:
        parts = [_times(L, "encoder", W * shape.encoder_weights + F * H, 0, W * shape.encoder_weights / H + F * H)]
    else:
        parts = [_times(L, "encoder", W * H, 0, F * H)]
    norm = 0 if shape.norm == "none" else 1
    for i, rate in enumerate(shape.rates):
        kernel = (6 if shape.trainable_B else 4) * modes * H + H
        columns = 2 * H * H * (rate if spiking else 1)
        parts += [
            _times(L, f"layer {i} ssm state", F * kernel, F * 4 * modes * H, F * 2 * H),
            _times(L, f"layer {i} neuron", 0, F * 2 * H, F * H + bit) if spiking else Traffic(f"layer {i} neuron"),
            _times(L, f"layer {i} mix", W * columns + F * 2 * H, 0, (bit if spiking else W * H) + F * 2 * H),
            _times(L, f"layer {i} glu", 0, 0, F * 3 * H),
            _times(L, f"layer {i} norm", norm * F * 2 * H, 0, norm * F * 2 * H),
            _times(L, f"layer {i} residual", 0, 0, F * 3 * H),
        ]
    steps, pooled = (L, 0) if shape.decode_every_step else (1, L)
    decoder = _times(steps, "decoder", W * shape.decoder_weights + F * shape.classes, 0, W * H + F * shape.classes)
    pooling = _times(pooled, "decoder", 0, F * 2 * H, F * H)
    return [*parts, total([decoder, pooling], "decoder")]


def _times(steps: float, part: str, weights: float, state: float, activations: float) -> Traffic:
    return Traffic(part, steps * weights, steps * state, steps * activations)


def total(parts: Sequence[Traffic], part: str = "total") -> Traffic:
    """The sum of ``parts``."""
    return Traffic(part, *(sum(getattr(p, kind) for p in parts) for kind in ("weights", "state", "activations")))


def joules(bytes_moved: float, level: str) -> float:
    """Energy of moving bytes to or from a level.

    Raises:
        UserError: no such level.
    """
    if level not in LEVELS:
        raise UserError(f"unknown memory {level!r}; choose one of {', '.join(LEVELS)}")
    return bytes_moved * LEVELS[level] * 1e-12


def footprint(shape: Shape) -> float:
    """Bytes that must lie somewhere: all parameters and the state of one stream, in 32 bits."""
    modes = shape.d_state // 2 * (2 if shape.bidirectional else 1)
    state = len(shape.rates) * (2 * modes + 1) * shape.d_model + shape.d_model
    return _FLOAT * (shape.parameters + state)


def smallest(size: float) -> str:
    """The smallest level that holds ``size`` bytes."""
    return next((level for level, room in _HOLDS.items() if size <= room), "DRAM")
