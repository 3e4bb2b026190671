"""``python -m src.write CKPT --prompt "..."``: let a language model go on with a text, token by token."""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdn.errors import UserError, door
from sdn.named import Allow

if TYPE_CHECKING:
    from src.dataloaders.vocab import Vocab
    from src.module import SequenceModule


@door
def main(argv: list[str] | None = None) -> None:
    """Print the prompt and what the model makes of it."""
    parser = argparse.ArgumentParser(prog="python -m src.write", description=__doc__)
    parser.add_argument("checkpoint", help="a checkpoint of pipeline=corpus or experiment=spikingssm/wt103, wt2")
    parser.add_argument("--prompt", default="The", help="text to begin with, as the corpus writes it")
    parser.add_argument("--length", type=int, default=100, help="tokens to add")
    parser.add_argument("--temperature", type=float, default=0.8, help="below 1 safer, above 1 bolder, 0 the likeliest")
    parser.add_argument("--top-p", type=float, default=0.9, help="draw from the likeliest tokens of this mass")
    parser.add_argument("--no-unk", action="store_true", help="never write <unk>, whatever the model thinks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow", action=Allow)
    options = parser.parse_args(argv)
    import torch

    from models.spike.sampling import sample
    from src.dataloaders.vocab import UNK, tokens_of
    from src.export import network_of

    module, vocab, level = _model(options.checkpoint)
    words = tokens_of(options.prompt, level)
    if UNK not in vocab and (unknown := sorted({word for word in words if word not in vocab})):
        raise UserError(f"the model does not know {', '.join(map(repr, unknown[:5]))}; write the prompt without")
    prompt = torch.tensor(vocab.encode(words))
    generator = torch.Generator().manual_seed(options.seed)
    without = [vocab[UNK]] if options.no_unk and UNK in vocab else []
    print(" ".join(words) if level == "word" else options.prompt, end="", flush=True)
    say = _printer(level)
    drawn = sample(network_of(module), prompt, options.length, options.temperature, options.top_p, generator, without)
    for token in drawn:
        print(say(vocab.decode([token])[0]), end="", flush=True)
    print()


def _model(path: str) -> tuple[SequenceModule, Vocab, str]:
    """The language model of a checkpoint, its vocabulary and what its tokens are; from the checkpoint alone, or with
    the data set where it is an older one that does not hold the vocabulary."""
    from src.dataloaders.vocab import Vocab
    from src.module import SequenceModule
    from src.restore import restore

    module = SequenceModule.from_checkpoint(path)
    if module.config["task"]["_name_"] != "lm":
        raise UserError(
            f"{path} is no language model; train one with pipeline=corpus, or experiment=spikingssm/wt103 or wt2"
        )
    facts = module.facts()
    if "tokens" not in facts:
        module, data = restore(path)
        facts = data.facts()
    return module, Vocab(facts["tokens"]), facts.get("level", "word")


def _printer(level: str) -> Callable[[str], str]:
    """``say(token)``: what to print for the next token."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def say(token: str) -> str:
        if token == "<eos>":
            return "\n"
        if level == "word":
            return f" {token}"
        return decoder.decode(token.encode("latin-1")) if level == "byte" else token

    return say


if __name__ == "__main__":
    sys.exit(main())
