"""A surrogate network written down by hand: the neuron's own equations as ReLU units, a start for refinement.

A neuron's potential is a nest of one function: u_t = f(x_t + tau u_{t-1}) with f(z) = z below the threshold and 0 from
it on. ReLU units with a steep ramp of width w around 1, lo = 1 - w/2 and hi = 1 + w/2, give the step H and so f::

    H(z) ~ (relu(z - lo) - relu(z - hi)) / w,    f(z) = z - z H(z) ~ z - relu(z - lo) - lo H(z)

and z itself is a unit with a large bias: relu(z + reach) - reach.

- First layer: a linear carrier of the last inputs, and a ramp (two units) for each of the steps t-2, t-3, ...,
  whose potential is taken as z_s = x_s + tau x_{s-1}.
- Second layer: the ramp of step t-1. So the network resets exactly one step back, and nearly so further back.
- What this gets wrong most is a step t-2 that would have fired, had t-3 not: z_{t-2} >= 1, x_{t-2} < 1, and
  z_{t-3} >= 1. Where there are units for it (8 channels), a ramp of x_{t-2} makes this a gate of the second layer,
  relu(H(z_{t-3}) + H(z_{t-2}) - H(x_{t-2}) - 1), which gives tau^2 back to mem.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from ..lif import check_tau
from ..network import ReducedSDN
from .construct_two import construct_two


def constructible(d_model: int, kernel_size: int, n_layers: int) -> bool:
    """Whether :func:`construct` can make a network of that size."""
    return (n_layers == 1 and d_model >= 3) or (n_layers == 2 and d_model >= 5 and kernel_size >= 3)


def construct(
    tau: float,
    d_model: int = 8,
    kernel_size: int = 8,
    width: float = 0.02,
    reach: float = 64.0,
    seed: int = 0,
    n_layers: int = 1,
) -> ReducedSDN:
    """The network above, in float64. Units it has no use for start with random rows and no say in the output.

    Args:
        width: w, of the ramp that stands for the jump at the threshold.
        reach: potentials from -reach up pass through unchanged.
        seed: of the random rows.
        n_layers: 1, or 2 for the network of :mod:`sdn.fitting.construct_two`.

    Raises:
        UserError: tau, width or reach out of range, fewer than 3 channels, or sizes that two layers cannot have.
    """
    check_tau(tau)
    if not 0 < width < 2 or not reach > 0:
        raise UserError(f"a ramp has a width between 0 and 2, and reach is above 0, not {width} and {reach}")
    if not constructible(d_model, kernel_size, n_layers):
        raise UserError(
            "an SDN can be constructed with one layer of at least 3 channels (a carrier and two ramp units), or with "
            f"two of at least 5 channels and a window of at least 3 inputs, not with {n_layers} "
            f"layer{'s' * (n_layers != 1)}, {d_model} channels and a window of {kernel_size}"
        )
    if n_layers == 2:
        return construct_two(tau, d_model, kernel_size, width, reach, seed)
    generator = torch.Generator().manual_seed(seed)
    lo, hi = 1 - width / 2, 1 + width / 2
    ends = torch.tensor([lo, hi], dtype=torch.float64)
    step = torch.tensor([1, -1], dtype=torch.float64) / width  # H(z) from a ramp's two units
    jump = lo * step + torch.tensor([1, 0], dtype=torch.float64)  # z - f(z)

    def noise(rows: Tensor) -> Tensor:
        return 0.3 * torch.randn(rows.shape, generator=generator).double()

    # First layer; window column -lag holds x_{t - lag}. `potential` mixes its units to x_{t-1} + tau u_{t-2}.
    conv, conv_bias, potential = (
        torch.zeros(n, dtype=torch.float64) for n in ((d_model, kernel_size), d_model, d_model)
    )
    for lag in range(1, min(kernel_size, 5) + 1):
        conv[0, -lag] = tau ** (lag - 1)
    conv_bias[0], potential[0] = reach, 1
    gated = d_model >= 8 and kernel_size >= 4
    lags = range(2, min(kernel_size, (d_model - (1 + 2 * gated)) // 2 + 1) + 1)
    ramps = {lag: slice(2 * lag - 3, 2 * lag - 1) for lag in lags}
    for lag, units in ramps.items():
        conv[units, -lag] = 1
        if lag < kernel_size:
            conv[units, -lag - 1] = tau
        conv_bias[units], potential[units] = -ends, -(tau ** (lag - 1)) * jump
    used = 1 + 2 * len(ramps)
    if gated:
        bare, used = slice(used, used + 2), used + 2
        conv[bare, -2], conv_bias[bare] = 1, -ends
    conv[used:] = noise(conv[used:])

    # Second layer: the carrier, the ramp of step t-1, the gate; then mem = tau f(z) + gate.
    mix, mix_bias, out = (torch.zeros(n, dtype=torch.float64) for n in ((d_model, d_model), d_model, d_model))
    mix[:3], mix_bias[1:3] = potential, -reach - ends
    out[0], out[1:3] = tau, -tau * jump
    used = 3
    if gated:
        mix[3, ramps[3]], mix[3, ramps[2]], mix[3, bare], mix_bias[3] = step, step, -step, -1
        out[3], used = tau**2, 4
    mix[used:], mix_bias[used:] = noise(mix[used:]), noise(mix_bias[used:])
    mix[used:, 0] = 0  # the carrier is large: spare units look at the others
    tensors = {"conv_weight": conv, "conv_bias": conv_bias, "mix_weight": mix, "mix_bias": mix_bias}
    tensors |= {"out_weight": out, "out_bias": torch.tensor(-tau * reach, dtype=torch.float64)}
    return ReducedSDN(tensors, tau, {"start": "constructed", "start_width": width, "start_reach": reach})
