"""Operations and energy of a SpikingSSM, for every part of it, by a stated model.

The model is the field's usual one: energy = MACs * e_mac + accumulates * e_ac with 4.6 pJ and 0.9 pJ for
32-bit arithmetic in 45 nm (Horowitz, ISSCC 2014). Memory traffic is not in it. Each part is counted per time
step in the recurrent form, the form a neuromorphic or streaming device runs:

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

The paper counts the mix alone (arXiv 2408.14909, energy table): :func:`paper_count` reproduces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdn.errors import UserError


@dataclass(frozen=True)
class Constants:
    """Energy of one operation in picojoules, and what a sigmoid counts as, in MACs."""

    mac_pj: float = 4.6
    ac_pj: float = 0.9
    sigmoid_macs: float = 4.0

    def __post_init__(self) -> None:
        if min(self.mac_pj, self.ac_pj, self.sigmoid_macs) < 0:
            raise UserError("energy constants cannot be negative")


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates and plain accumulates of one part over one sequence."""

    part: str
    mac: float = 0.0
    ac: float = 0.0

    def joules(self, constants: Constants) -> float:
        """Energy in joules."""
        return (self.mac * constants.mac_pj + self.ac * constants.ac_pj) * 1e-12


@dataclass(frozen=True)
class Shape:
    """What the count needs to know of a network; ``rates`` are the measured firing rates, one a layer, in [0, 1]."""

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


def count(shape: Shape, constants: Constants | None = None, spiking: bool = True) -> list[Operations]:
    """Operations of one sequence, part by part and layer by layer (``spiking=False``: the same net, dense activations).

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
    return parts


def mix(H: int, L: int, rate: float, part: str = "mix", bias: bool = True) -> Operations:
    """The 1x1 mix H -> 2H fed with spikes: a column of 2H weights is added for each spike."""
    return Operations(part, 0, rate * 2 * H * H * L + (2 * H * L if bias else 0))


def total(parts: Sequence[Operations], part: str = "total") -> Operations:
    """The sum of ``parts``."""
    return Operations(part, sum(p.mac for p in parts), sum(p.ac for p in parts))


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
