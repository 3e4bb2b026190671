"""``python -m src.write CKPT --prompt "..."``: let a language model go on with a text, word by word."""

from __future__ import annotations

import argparse
import sys

from sdn.errors import UserError, door
from sdn.named import Allow


@door
def main(argv: list[str] | None = None) -> None:
    """Print the prompt and what the model makes of it."""
    parser = argparse.ArgumentParser(prog="python -m src.write", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint of experiment=spikingssm/wt103 or wt2")
    parser.add_argument("--prompt", default="The", help="words to begin with, as the corpus writes them")
    parser.add_argument("--length", type=int, default=100, help="words to add")
    parser.add_argument("--temperature", type=float, default=0.8, help="below 1 safer, above 1 bolder, 0 the likeliest")
    parser.add_argument("--top-p", type=float, default=0.9, help="draw from the likeliest words of this mass")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow", action=Allow)
    options = parser.parse_args(argv)
    import torch

    from models.spike.sampling import sample
    from src.export import network_of
    from src.restore import restore

    module, data = restore(options.checkpoint)
    if not hasattr(data, "vocab") or module.config["task"]["_name_"] != "lm":
        raise UserError(f"{options.checkpoint} is no language model; train one with experiment=spikingssm/wt103 or wt2")
    words = options.prompt.split()
    prompt = torch.tensor(data.vocab.encode(words))
    generator = torch.Generator().manual_seed(options.seed)
    print(" ".join(words), end="", flush=True)
    for token in sample(network_of(module), prompt, options.length, options.temperature, options.top_p, generator):
        word = data.vocab.decode([token])[0]
        print("\n" if word == "<eos>" else f" {word}", end="", flush=True)
    print()


if __name__ == "__main__":
    sys.exit(main())
