"""Operations of a SpikingSSM and their energy, for every part of it, by a stated model: the field's usual proxy.

Energy = MACs * e_mac + accumulates * e_ac with 4.6 pJ and 0.9 pJ for 32-bit arithmetic in 45 nm (Horowitz,
"Computing's energy problem", ISSCC 2014). Bytes moved are counted in :mod:`src.evaluation.memory`. Each part is counted
per time step in the recurrent form, the form a neuromorphic or streaming device runs:

=============  =========================================================  ======================
part           MAC per step                                               accumulate per step
=============  =========================================================  ======================
encoder        its weights (linear: d_in H); 0 for a table look-up        H (bias)
ssm state      dirs H (N/2) (4 A h + 2 B x + 2 C h) + H (D x);            0;
               plain form (B folds into C): (4 A h + 2 C h)               dirs H N/2 (add x)
neuron         H (tau u); v_th folds into C and D                         2 H (add I, compare)
mix            spikes: none; dense: 2 H^2                                 spikes: r 2 H^2; 2 H bias
GLU            H (1 + sigmoid)                                            0
norm           H (batch, folded to one scale), 4 H (layer)                H, 3 H
residual       0                                                          H
decoder        its weights, once a sequence or every step                 H (running mean), C
=============  =========================================================  ======================

A twin with 8-bit weights does the products of encoder, mix and decoder in 8 bits, 0.2 pJ, and adds them up in 32 bits,
0.1 pJ; state, neuron, GLU and norm stay in floats.

The paper counts the mix alone (arXiv 2408.14909, energy table): :func:`paper_count` reproduces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdn.errors import UserError


@dataclass(frozen=True)
class Constants:
    """Energy of one operation in picojoules, in 32-bit floats and in 8-bit integers, and a sigmoid in MACs."""

    mac_pj: float = 4.6
    ac_pj: float = 0.9
    sigmoid_macs: float = 4.0
    mac8_pj: float = 0.3
    ac8_pj: float = 0.1

    def __post_init__(self) -> None:
        if min(self.mac_pj, self.ac_pj, self.sigmoid_macs, self.mac8_pj, self.ac8_pj) < 0:
            raise UserError("energy constants cannot be negative")


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates and plain accumulates of one part over one sequence; ``mac8``, ``ac8`` of 8-bit weights."""

    part: str
    mac: float = 0.0
    ac: float = 0.0
    mac8: float = 0.0
    ac8: float = 0.0

    def joules(self, constants: Constants) -> float:
        """Energy in joules."""
        floats = self.mac * constants.mac_pj + self.ac * constants.ac_pj
        return (floats + self.mac8 * constants.mac8_pj + self.ac8 * constants.ac8_pj) * 1e-12


@dataclass(frozen=True)
class Shape:
    """What the counts need to know of a network; ``rates`` are the measured firing rates, one a layer, in [0, 1].

    ``length`` counts steps of the backbone a sample; ``parameters`` all numbers of the network, for its room in memory.
    """

    d_model: int
    d_state: int
    length: int
    rates: Sequence[float]
    bidirectional: bool = False
    norm: str = "layer"
    encoder_weights: int = 0
    decoder_weights: int = 0
    classes: int = 0
    decode_every_step: bool = False
    trainable_B: bool = True
    parameters: int = 0


def count(
    shape: Shape, constants: Constants | None = None, spiking: bool = True, int8: bool = False
) -> list[Operations]:
    """Operations of one sequence, part by part and layer by layer.

    Args:
        spiking: False for the dense twin: the same network with dense activations instead of neurons.
        int8: weights of encoder, mix and decoder in 8 bits.

    Raises:
        UserError: a rate outside [0, 1] or an unknown norm.
    """
    constants = constants or Constants()
    H, L, modes = shape.d_model, shape.length, shape.d_state // 2
    directions = 2 if shape.bidirectional else 1
    norms = {"batch": (1, 1), "layer": (4, 3), "none": (0, 0)}
    if shape.norm not in norms:
        raise UserError(f"unknown norm {shape.norm!r}; choose one of {', '.join(norms)}")
    norm_mac, norm_ac = norms[shape.norm]

    parts = [Operations("encoder", shape.encoder_weights * L, H * L if shape.encoder_weights else 0)]
    for i, rate in enumerate(shape.rates):
        if not 0 <= rate <= 1:
            raise UserError(f"the firing rate of layer {i} is {rate}; it must lie in [0, 1]")
        parts += [
            Operations(
                f"layer {i} ssm state",
                (directions * modes * (8 if shape.trainable_B else 6) + 1) * H * L,
                0 if shape.trainable_B else directions * modes * H * L,
            ),
            Operations(f"layer {i} neuron", H * L, 2 * H * L) if spiking else Operations(f"layer {i} neuron"),
            mix(H, L, rate, f"layer {i} mix") if spiking else Operations(f"layer {i} mix", 2 * H * H * L, 2 * H * L),
            Operations(f"layer {i} glu", (1 + constants.sigmoid_macs) * H * L),
            Operations(f"layer {i} norm", norm_mac * H * L, norm_ac * H * L),
            Operations(f"layer {i} residual", 0, H * L),
        ]
    steps = L if shape.decode_every_step else 1
    pooling = 0 if shape.decode_every_step else H * L
    parts.append(Operations("decoder", shape.decoder_weights * steps, pooling + shape.classes * steps))
    linear = [p.part in ("encoder", "decoder") or p.part.endswith("mix") for p in parts]
    return [_in_8_bits(p, pooling) if int8 and has_weights else p for p, has_weights in zip(parts, linear, strict=True)]


def _in_8_bits(part: Operations, pooling: float) -> Operations:
    """Products and sums of a linear part in 8 bits; the running mean before a decoder stays in floats."""
    floats = pooling if part.part == "decoder" else 0
    return Operations(part.part, 0, floats, part.mac, part.ac - floats)


def mix(H: int, L: int, rate: float, part: str = "mix", bias: bool = True) -> Operations:
    """The 1x1 mix H -> 2H fed with spikes: a column of 2H weights is added for each spike."""
    return Operations(part, 0, rate * 2 * H * H * L + (2 * H * L if bias else 0))


def total(parts: Sequence[Operations], part: str = "total") -> Operations:
    """The sum of ``parts``."""
    return Operations(part, *(sum(getattr(p, kind) for p in parts) for kind in ("mac", "ac", "mac8", "ac8")))


def paper_count(layers: int, H: int, L: int, rate: float, constants: Constants | None = None) -> dict[str, float]:
    """The paper's own narrower count: the mix alone, without bias, dense (MACs) and fed with spikes (accumulates)."""
    constants = constants or Constants()
    dense = Operations("mix", layers * 2.0 * H * H * L)
    sparse = total([mix(H, L, rate, bias=False)] * layers)
    return {
        "dense_mac": dense.mac,
        "dense_joules": dense.joules(constants),
        "spiking_ac": sparse.ac,
        "spiking_joules": sparse.joules(constants),
    }
