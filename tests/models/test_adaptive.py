"""Adaptive embedding and softmax against the plain formulas, word by word."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from models.spike.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from sdn.errors import UserError

N, D, CUTOFFS = 23, 8, [5, 11]


def build(dropout: float = 0.0) -> tuple[AdaptiveEmbedding, AdaptiveSoftmax]:
    """A small pair; what starts at zero is given values, so that a test sees it."""
    torch.manual_seed(0)
    embedding = AdaptiveEmbedding(N, D, CUTOFFS, div_val=2, dropout=dropout)
    softmax = AdaptiveSoftmax(embedding, dropout)
    for parameter in (softmax.head.projection, softmax.head.cluster_weight, softmax.head.cluster_bias):
        nn.init.normal_(parameter)
    return embedding, softmax


def naive_log_prob(embedding: AdaptiveEmbedding, softmax: AdaptiveSoftmax, hidden: Tensor) -> Tensor:
    """log p (n_tokens,) for one hidden vector (d_model,): a full softmax by the definition."""
    features = hidden @ softmax.head.projection
    scores = [features @ word + b for word, b in zip(embedding.words[0].weight, softmax.head.bias, strict=True)]
    scores += [features @ c + b for c, b in zip(softmax.head.cluster_weight, softmax.head.cluster_bias, strict=True)]
    head = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    probabilities = list(head[: CUTOFFS[0]])
    for i, tail in enumerate(softmax.tail, start=1):
        features = hidden @ embedding.projections[i]
        scores = torch.stack([features @ w + b for w, b in zip(embedding.words[i].weight, tail.bias, strict=True)])
        probabilities += list(head[CUTOFFS[0] + i - 1] * scores.exp() / scores.exp().sum())
    return torch.stack(probabilities).log()


def test_embedding_by_definition() -> None:
    embedding, _ = build()
    tokens = torch.tensor([[0, 4, 5], [10, 11, 22]])
    rows = {0: (0, 0), 4: (0, 4), 5: (1, 0), 10: (1, 5), 11: (2, 0), 22: (2, 11)}
    for token, value in zip(tokens.flatten().tolist(), embedding(tokens).reshape(-1, D), strict=True):
        cluster, row = rows[token]
        expected = embedding.projections[cluster] @ embedding.words[cluster].weight[row] * math.sqrt(D)
        torch.testing.assert_close(value, expected)
    assert embedding(tokens).shape == (2, 3, D)
    assert embedding(tokens[0]).shape == (3, D)


def test_softmax_equals_the_full_softmax_and_sums_to_one() -> None:
    embedding, softmax = build()
    hidden = torch.randn(2, 3, D)
    log_prob = softmax.log_prob(hidden)
    assert log_prob.shape == (2, 3, N)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(2, 3))
    for got, row in zip(log_prob.reshape(-1, N), hidden.reshape(-1, D), strict=True):
        torch.testing.assert_close(got, naive_log_prob(embedding, softmax, row))


def test_targets_are_scored_as_by_the_full_softmax_values_and_gradients() -> None:
    embedding, softmax = build()
    hidden, target = torch.randn(N, D, requires_grad=True), torch.randperm(N)
    parameters = [*embedding.parameters(), *softmax.parameters(), hidden]
    got = softmax(hidden, target)
    naive = torch.stack([naive_log_prob(embedding, softmax, h)[t] for h, t in zip(hidden, target, strict=True)])
    torch.testing.assert_close(got, naive)
    weights = torch.randn(N)
    for ours, expected in zip(
        torch.autograd.grad((got * weights).sum(), parameters, allow_unused=True),
        torch.autograd.grad((naive * weights).sum(), parameters, allow_unused=True),
        strict=True,
    ):
        if expected is None:  # the head's words have no use for the embedding's first projection
            assert ours is None
        else:
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_single_targets_and_greedy_prediction() -> None:
    _, softmax = build()
    hidden = torch.randn(40, D)
    expected = softmax.log_prob(hidden)
    assert torch.equal(softmax.predict(hidden), expected.argmax(-1))
    torch.testing.assert_close(softmax(hidden[:1], torch.tensor([7])), expected[:1, 7])


def test_parameters_at_wikitext_103() -> None:
    with torch.device("meta"):
        embedding = AdaptiveEmbedding(267_735, 1024, [19_997, 39_997, 199_997])
        softmax = AdaptiveSoftmax(embedding)
    assert [tuple(words.weight.shape) for words in embedding.words] == [
        (19_997, 1024),
        (20_000, 256),
        (160_000, 64),
        (67_738, 16),
    ]
    assert sum(p.numel() for p in embedding.parameters()) == 38_313_376
    own = sum(p.numel() for p in softmax.parameters())
    assert own == 1024**2 + 3 * 1025 + 267_735
    assert sum(p.numel() for p in nn.ModuleList([embedding, softmax]).parameters()) == 39_632_762


def test_tied_parameters_stand_once_and_stay_tied_in_copies() -> None:
    pair = nn.ModuleList(build())
    assert len(pair.state_dict()) == len(list(pair.parameters())) == 3 + 3 + 6
    twin = copy.deepcopy(pair).double()
    assert twin[1].head.words is twin[0].words[0].weight
    assert twin[1].head.words is not pair[0].words[0].weight
    hidden = torch.randn(1, D, dtype=torch.float64)
    before = twin[1].log_prob(hidden)
    with torch.no_grad():
        twin[0].words[2].weight[3] += 1.0
    changed = (twin[1].log_prob(hidden) != before)[0]
    assert changed[11:].all()
    assert not changed[:11].any()


def test_initial_values() -> None:
    torch.manual_seed(0)
    embedding = AdaptiveEmbedding(60_000, 64, [20_000, 40_000], div_val=4)
    softmax = AdaptiveSoftmax(embedding, bias_scale=2.0)
    for words, width in zip(embedding.words, (64, 16, 4), strict=True):
        assert words.weight.std().item() == pytest.approx(0.5 * width**-0.5, rel=0.02)
    assert embedding.projections[0].std().item() == pytest.approx(0.5 / 8, rel=0.05)
    assert not any(p.any() for p in (softmax.head.projection, softmax.head.cluster_weight, softmax.head.cluster_bias))
    for bias in (softmax.head.bias, softmax.tail[1].bias):
        assert bias.abs().max().item() == pytest.approx(0.25, rel=0.01)
        assert bias.mean().item() == pytest.approx(0, abs=0.01)


def test_absent_clusters_still_give_every_parameter_a_gradient() -> None:
    embedding, softmax = build()
    softmax(embedding(torch.tensor([1, 2])), torch.tensor([0, 3])).sum().backward()
    for name, parameter in nn.ModuleList([embedding, softmax]).named_parameters():
        assert parameter.grad is not None, name


def test_dropout_only_in_training() -> None:
    embedding, softmax = build(dropout=0.5)
    tokens, hidden, target = torch.arange(N), torch.randn(N, D), torch.arange(N)
    assert not torch.equal(embedding(tokens), embedding(tokens))
    assert not torch.equal(softmax(hidden, target), softmax(hidden, target))
    embedding.eval(), softmax.eval()
    assert torch.equal(embedding(tokens), embedding(tokens))
    assert torch.equal(softmax(hidden, target), softmax(hidden, target))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_precision_hidden_states(dtype: torch.dtype) -> None:
    embedding, softmax = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = embedding(torch.arange(N)).to(dtype)
        output = softmax(hidden, torch.arange(N))
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, softmax(embedding(torch.arange(N)), torch.arange(N)), atol=0.2, rtol=0.05)


@pytest.mark.parametrize("cutoffs", [[], [0, 5], [5, 5], [7, 3], [5, 23], [5, 30]])
def test_cutoffs_outside_the_vocabulary_are_refused(cutoffs: list[int]) -> None:
    with pytest.raises(UserError, match=r"within the 23 words"):
        AdaptiveEmbedding(N, D, cutoffs)


def test_a_cluster_without_width_is_refused() -> None:
    with pytest.raises(UserError, match="div_val"):
        AdaptiveEmbedding(N, D, CUTOFFS, div_val=4)


def test_unknown_ids_are_refused() -> None:
    embedding, _ = build()
    with pytest.raises(IndexError, match=r"0 \.\. 22"):
        embedding(torch.tensor([3, 23]))
