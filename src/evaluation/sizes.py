"""The sizes of a module that the operation count needs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.spike.adaptive import AdaptiveSoftmax
from models.spike.heads import ConvEncoder
from src.evaluation.energy import Shape
from src.module import SequenceModule


def shape_of(module: SequenceModule, length: float, rates: Sequence[float]) -> Shape:
    """What :func:`src.evaluation.energy.count` needs: sizes from the module, length and firing rates as measured."""
    backbone, config = module.backbone, module.config["model"]
    encoder = module.encoder
    softmax = next((part for part in module.task.modules() if isinstance(part, AdaptiveSoftmax)), None)
    head = module.decoder if softmax is None else softmax
    if isinstance(encoder, nn.Linear):
        encoder_weights = encoder.weight.numel()
    elif isinstance(encoder, ConvEncoder):
        encoder_weights = encoder.conv.weight.numel() * (encoder.stride if encoder.pool else 1)
    else:  # a look-up, and of an adaptive embedding the projection of the widest cluster
        encoder_weights = max((p.numel() for p in getattr(encoder, "projections", [])), default=0)
    return Shape(
        d_model=backbone.d_model,
        d_state=2 * backbone.layers[0].kernel.n_modes,
        length=length,
        rates=rates,
        bidirectional=backbone.layers[0].bidirectional,
        norm="none" if isinstance(backbone.norms[0], nn.Identity) else config["norm"],
        encoder_weights=encoder_weights,
        decoder_weights=_weights(head),
        classes=module.data.d_output if softmax is None else softmax.n_classes,
        decode_every_step=softmax is not None or getattr(module.decoder, "every_step", False),
        trainable_B=bool(config["layer"]["trainable_B"]),
        parameters=sum(p.numel() for p in module.parameters()),
    )


def _weights(head: nn.Module) -> int:
    """Matrix entries of a decoder, tied ones included: each is used once whenever it decodes."""
    own = sum(p.numel() for p in head.parameters() if p.dim() > 1)
    if isinstance(head, AdaptiveSoftmax):
        tails = [head.head, *head.tail]
        own += sum(part.words.numel() for part in tails)
        own += sum(part._embedding[0].projections[part._cluster].numel() for part in head.tail)
    return own
