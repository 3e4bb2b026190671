"""The neuron's equations as ReLU units of an SDN of two layers, which follow the reset exactly two steps back.

See :mod:`sdn.fitting.construct` for one layer, for the ramp of two units that stands for the jump, and for f. A second
layer looks at the first one's units a step ago, so that one estimate serves at two steps (z_s: potential before the
spike at s; all of them without what lies before the window)::

    first convolution    carrier  x_{t-1} + tau x_{t-2} + ...      ramps of z_{t-2} and z_{t-3}, linear in x
    first mix            C_t = x_{t-1} + tau z_{t-2}, with the reset at t-3        (carrier and the ramp of z_{t-3})
                         the ramp of z_{t-1}, with the reset at t-2                (carrier and the ramp of z_{t-2})
    second convolution   C_t, and that ramp a step ago: of z_{t-2}, with the reset at t-3
    second mix           z_{t-1} = C_t - tau (z_{t-2} - f(z_{t-2})), and its ramp;      mem_t = tau f(z_{t-1})

What is read a step ago is a ramp, zero at rest as the layer's past is before the first step; a carrier would not be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import ReducedSDN


def construct_two(tau: float, d_model: int, kernel_size: int, width: float, reach: float, seed: int) -> ReducedSDN:
    """The network above, in float64; arguments as in :func:`sdn.fitting.construct.construct`, which checks them."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor([1 - width / 2, 1 + width / 2], dtype=torch.float64)
    step = torch.tensor([1, -1], dtype=torch.float64) / width
    jump = ends[0] * step + torch.tensor([1, 0], dtype=torch.float64)  # z - f(z) from a ramp's two units

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    def noise(rows: Tensor) -> Tensor:
        return 0.3 * torch.randn(rows.shape, generator=generator).double()

    conv, conv_2 = zeros(d_model, kernel_size), zeros(d_model, kernel_size)
    mix, mix_2 = zeros(d_model, d_model), zeros(d_model, d_model)
    conv_bias, mix_bias, conv_bias_2, mix_bias_2, out = (zeros(d_model) for _ in range(5))
    ramp, early = slice(1, 3), slice(3, 5)
    for units, lag in ((slice(0, 1), 1), (ramp, 2), (early, 3)):
        for i in range(lag, kernel_size + 1):
            conv[units, -i] = tau ** (i - lag)
    conv_bias[0], conv_bias[ramp], conv_bias[early] = reach, -ends, -ends
    mix[:3, 0] = 1
    mix[0, early], mix[1:3, ramp] = -(tau**2) * jump, -tau * jump
    mix_bias[ramp] = mix_bias_2[ramp] = -reach - ends
    conv_2[0, -1], conv_2[ramp, -2] = 1, 1
    mix_2[:3, 0], mix_2[:3, ramp] = 1, -tau * jump
    out[0], out[ramp] = tau, -tau * jump
    for rows in (conv[5:], mix[3:, 1:], mix_bias[3:], conv_2[3:], conv_bias_2[3:], mix_2[3:, 1:], mix_bias_2[3:]):
        rows += noise(rows)  # spare units; they look at all but the carrier, which is large
    tensors = {"conv_weight": conv, "conv_bias": conv_bias, "mix_weight": mix, "mix_bias": mix_bias}
    tensors |= {"conv_weight_2": conv_2, "conv_bias_2": conv_bias_2, "mix_weight_2": mix_2, "mix_bias_2": mix_bias_2}
    tensors |= {"out_weight": out, "out_bias": torch.tensor(-tau * reach, dtype=torch.float64)}
    return ReducedSDN(tensors, tau, {"start": "constructed", "start_width": width, "start_reach": reach})
