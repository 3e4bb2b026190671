"""Text from a language model, token by token with constant memory: temperature and nucleus (top-p) sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sdn.errors import UserError

from .adaptive import AdaptiveSoftmax
from .network import Network


def top_p_filter(log_prob: Tensor, top_p: float) -> Tensor:
    """Log-probabilities ``(..., V)`` with all but the nucleus at minus infinity, not renormalised.

    The nucleus is the smallest set of most likely tokens whose probabilities sum to at least ``top_p``; it always
    holds the most likely token (Holtzman et al., 2020).
    """
    ordered, index = log_prob.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    ordered = ordered.masked_fill(before >= top_p, -torch.inf)
    return torch.empty_like(ordered).scatter(-1, index, ordered)


@torch.no_grad()
def sample(
    network: Network,
    prompt: Tensor,
    length: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    without: Sequence[int] = (),
) -> Iterator[int]:
    """Yield ``length`` tokens that follow ``prompt (P,)``, each drawn from the model's distribution.

    The prompt runs in parallel and hands its state to the steps.

    Args:
        temperature: log-probabilities are divided by it; 0 always takes the most likely token.
        top_p: draw from the nucleus of this probability mass only, 0 < top_p <= 1.
        without: tokens that are never drawn; the others share their probability.

    Raises:
        UserError: not a language model, an empty prompt, or an option out of range.
    """
    if not isinstance(network.decoder, AdaptiveSoftmax):
        raise UserError(
            "this network is no language model; train one with pipeline=corpus or experiment=spikingssm/wt103"
        )
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError(f"temperature must be at least 0 and 0 < top_p <= 1, not {temperature} and {top_p}")
    if not len(prompt):
        raise UserError("the prompt is empty; give at least one token to start from")
    hidden, state = network.backbone(network.encoder(prompt.unsqueeze(0)), network.backbone.initial_state(1))
    constants = network.backbone.recurrence()
    hidden = hidden[:, -1]
    for _ in range(length):
        log_prob = network.decoder.log_prob(hidden)
        log_prob[..., list(without)] = -torch.inf
        if temperature == 0:
            token = log_prob.argmax(-1)
        else:
            log_prob = (log_prob / temperature).log_softmax(-1)
            token = torch.multinomial(top_p_filter(log_prob, top_p).exp(), 1, generator=generator).squeeze(-1)
        yield int(token)
        hidden, state = network.backbone.step(network.encoder(token), state, constants)
