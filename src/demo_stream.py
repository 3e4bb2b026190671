"""``python -m src.demo_stream CKPT``: a digit arrives pixel by pixel; spikes and class probabilities move.

The network runs as a stream, one step a pixel with constant memory, and every frame shows what it knows so far.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sdn.errors import UserError, door
from sdn.named import Allow

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from models.spike.network import Network


@door
def main(argv: list[str] | None = None) -> None:
    """Draw one sample of the test set of a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m src.demo_stream", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="outputs/demo/digits-sdn/checkpoints/best.ckpt",
                        help="a classifier of images read pixel by pixel (default: the demo's)")  # fmt: skip
    parser.add_argument("--sample", type=int, default=0, help="which sample of the test set")
    parser.add_argument("--out", type=Path, default=Path("outputs/stream.gif"), help="NAME.gif")
    parser.add_argument("--every", type=int, default=1, help="pixels between two frames")
    parser.add_argument("--fps", type=int, default=10, help="frames a second")
    parser.add_argument("--allow", action=Allow)
    options = parser.parse_args(argv)
    if options.out.suffix != ".gif":
        raise UserError(f"the picture is a GIF; --out must end in .gif, not {options.out.name!r}")
    if options.every < 1 or options.fps < 1:
        raise UserError("--every and --fps must be at least 1")
    from src.evaluation.report.stream import animate
    from src.export import network_of
    from src.restore import restore

    module, data = restore(options.checkpoint)
    if not 0 <= options.sample < len(data.test):
        raise UserError(f"--sample must lie in 0 .. {len(data.test) - 1}, not {options.sample}")
    x, y = data.test[options.sample]
    if x.dim() != 2 or x.shape[1] != 1:
        raise UserError("this picture draws signals of one number a step; the checkpoint's data are of another kind")
    spikes, probabilities = stream(network_of(module), x)
    animate(x[:, 0].numpy(), spikes, probabilities, int(y), options.out, options.every, options.fps)
    verdict = probabilities[-1].argmax()
    print(f"wrote {options.out}: a {int(y)}, read as {verdict} with probability {probabilities[-1].max():.2f}")


def stream(network: Network, x: torch.Tensor) -> tuple[list[NDArray], NDArray]:
    """Run ``x (L, d_input)`` step by step: spikes ``(L, H)`` bool of each layer, probabilities ``(L, C)``."""
    import numpy as np

    layers = network.backbone.layers
    fired: list[list[NDArray]] = [[] for _ in layers]
    steps = [layer.neuron.step for layer in layers]

    def recorded(i: int) -> object:
        def step(current: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            s, after = steps[i](current, u)
            fired[i].append(s[0].bool().numpy())
            return s, after

        return step

    for i, layer in enumerate(layers):
        layer.neuron.step = recorded(i)
    try:
        state, constants, out = network.initial_state(), network.backbone.recurrence(), []
        for x_t in x:
            logits, state = network.step(x_t.unsqueeze(0), state, constants)
            out.append(logits[0].softmax(0).numpy())
    finally:
        for layer in layers:
            del layer.neuron.step
    return [np.stack(rows) for rows in fired], np.stack(out)


if __name__ == "__main__":
    sys.exit(main())
