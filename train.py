"""Two jobs behind one door.

1. Fit a surrogate dynamic network (SDN) to simulated neurons; chosen by an option --training:

    python train.py --training dataset/training-....pt --test dataset/test-....pt --save exp1
    python train.py --training F --test F --resume exp1
    python train.py --training --help             all options of the fit

2. Train a SpikingSSM on a task; everything else, read by Hydra:

    python -m train                               the default experiment, handwritten digits
    python -m train experiment=spikingssm/mnist   an experiment of configs/experiment
    python -m train experiment=spikingssm/mnist model.layer.neuron=sltt trainer.max_epochs=5
    python -m train --cfg job                     the configuration, without running it
    python -m train --hydra-help                  all options of Hydra
"""

from __future__ import annotations

import sys

from sdn.errors import door


@door
def main(argv: list[str] | None = None) -> int | None:
    argv = sys.argv[1:] if argv is None else argv
    if any(word == "--training" or word.startswith("--training=") for word in argv):
        from sdn.fitting.cli import main as fit

        return fit(argv)
    if argv in (["--help"], ["-h"]):
        print(__doc__.strip())
        return 0
    from src.train import main as train

    return train()


if __name__ == "__main__":
    sys.exit(main())
