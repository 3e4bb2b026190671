"""Gradients arrive with the strides of their parameters, axes of length 1 included: DDP warns and copies otherwise."""

import pytest
import torch

from models.spike.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from models.spike.heads import (
    ConvEncoder,
    EmbeddingEncoder,
    LinearEncoder,
    RetrievalDecoder,
    SequenceDecoder,
    StepDecoder,
)
from models.spike.ssm import SpikingSSM

LAYERS = {
    "causal": {},
    "bidirectional": {"bidirectional": True},
    "trainable B": {"trainable_B": True},
    "bidirectional, trainable B": {"bidirectional": True, "trainable_B": True},
    "shared threshold": {"shared_vth": True},
    "learnt tau and reset": {"neuron": "bptt", "learnable_tau": True, "learnable_u_r": True},
    **{name: {"neuron": name} for name in ("sltt", "bptt", "gelu", "alif", "resonate", "sliding_psn")},
    "sltt, bidirectional, trainable B": {"neuron": "sltt", "bidirectional": True, "trainable_B": True},
    "own rates": {"neuron": "sltt", "lr": None, "d_state": 2},
}


def _check(*parts: torch.nn.Module) -> None:
    named = [(name, p) for part in parts for name, p in part.named_parameters() if p.requires_grad]
    assert named
    for name, parameter in named:
        assert parameter.grad is not None, name
        assert parameter.grad.stride() == parameter.stride(), (name, parameter.shape, parameter.grad.stride())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("d_model", "norm"), [(6, "layer"), (32, "batch")], ids=["plain", "fused"])
def test_the_backbone(name, norm, d_model):
    options = {"dropout": 0.1, "prenorm": norm == "batch", "norm": norm}
    model = SpikingSSM(d_model, 1, **options, layer={"d_state": 8, **LAYERS[name]})
    model(torch.randn(2, 9, d_model))[0].square().sum().backward()
    _check(model)


@pytest.mark.parametrize("length", [1, 20])
@pytest.mark.parametrize("batch", [1, 2])
def test_small_batches(batch, length):
    model = SpikingSSM(2, 1, norm="layer", mask_padding=True, layer={"d_state": 2, "bidirectional": True})
    model(torch.randn(batch, length, 2), lengths=torch.full((batch,), length))[0].square().sum().backward()
    _check(model)


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        (LinearEncoder(1, 6), SequenceDecoder(6, 1)),
        (LinearEncoder(1, 6), StepDecoder(6, 3)),
        (EmbeddingEncoder(5, 6), SequenceDecoder(6, 3, "last")),
        (EmbeddingEncoder(5, 6), RetrievalDecoder(6, 2)),
        (ConvEncoder(6, n_tokens=5, d_embed=1, kernel=1, stride=1), SequenceDecoder(6, 3)),
        (ConvEncoder(6, d_input=1, kernel=3, stride=2, pool=True), StepDecoder(6, 3)),
    ],
)
def test_what_stands_around_it(encoder, decoder):
    tokens = isinstance(encoder, EmbeddingEncoder) or getattr(encoder, "embed", None) is not None
    x = torch.randint(5, (2, 8)) if tokens else torch.randn(2, 8, 1)
    decoder(encoder(x)).square().sum().backward()
    _check(encoder, decoder)


def test_a_language_model():
    encoder = AdaptiveEmbedding(12, 16, [3, 6])
    decoder = AdaptiveSoftmax(encoder)
    decoder(encoder(torch.arange(12)), torch.arange(12)).sum().backward()
    _check(encoder, decoder)
