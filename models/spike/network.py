"""A whole network, encoder, backbone and decoder, as one file that needs neither Hydra nor Lightning nor pickle.

The file is safetensors; its header carries a JSON description, from which :func:`load` builds the network::

    {"model": {options of SpikingSSM}, "encoder": {"kind": "linear", "d_input": 1},
     "decoder": {"kind": "sequence", "d_output": 10, "mode": "pool"}, "facts": {...}}

The weights of an SDN are in the file too, so a model trained with a user's own SDN is complete by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdn.errors import UserError
from sdn.files import atomic_path
from sdn.network import ReducedSDN
from sdn.neurons import SDNNeuron

from .adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from .heads import EmbeddingEncoder, LinearEncoder, RetrievalDecoder, SequenceDecoder, Summary
from .ssm import SpikingSSM
from .state import State

FORMAT = "spikingssm-network-1"


class NetworkState(NamedTuple):
    """Where a stream stands: the backbone's state and the decoder's running summary (None before the first sample)."""

    layers: State
    summary: Summary | None = None


class Network(nn.Module):
    """``forward(x, lengths=None, rate=1.0)`` -> logits; ``step(x_t, state)`` -> (logits after t samples, state).

    Args:
        spec: the description above.

    Raises:
        UserError: an unknown kind or option.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = json.loads(json.dumps(spec))
        model = dict(self.spec["model"])
        self.backbone = SpikingSSM(**model)
        self.encoder = _encoder(dict(self.spec["encoder"]), self.backbone.d_model)
        self.decoder = _decoder(dict(self.spec["decoder"]), self.backbone.d_model, self.encoder)

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the network: experiment, accuracy, date, whatever was saved with it."""
        return self.spec.get("facts", {})

    def forward(self, x: Tensor, lengths: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """``x (B, L, d_input)``, or token ids ``(B, L)`` -> logits ``(B, C)``; log-probabilities ``(B, L, V)`` of a
        language model."""
        h, _ = self.backbone(self.encoder(x), lengths=lengths, rate=rate)
        return self.decoder.log_prob(h) if isinstance(self.decoder, AdaptiveSoftmax) else self.decoder(h, lengths)

    def initial_state(self, batch: int = 1) -> NetworkState:
        """The state before the first sample."""
        if isinstance(self.decoder, RetrievalDecoder):
            raise UserError("retrieval compares two finished texts; it has no answer after every sample to stream")
        return NetworkState(self.backbone.initial_state(batch))

    @torch.no_grad()
    def step(self, x: Tensor, state: NetworkState, constants: list | None = None) -> tuple[Tensor, NetworkState]:
        """One sample, ``x (B, d_input)`` or ids ``(B,)`` -> logits ``(B, C)`` of what was seen so far."""
        h, layers = self.backbone.step(self.encoder(x), state.layers, constants)
        if isinstance(self.decoder, AdaptiveSoftmax):
            return self.decoder.log_prob(h), NetworkState(layers)
        logits, summary = self.decoder.step(h, state.summary)
        return logits, NetworkState(layers, summary)


def _encoder(spec: dict[str, Any], d_model: int) -> nn.Module:
    kinds = {"linear": LinearEncoder, "embedding": EmbeddingEncoder, "adaptive": AdaptiveEmbedding}
    return _make("encoder", kinds, spec, d_model=d_model)


def _decoder(spec: dict[str, Any], d_model: int, encoder: nn.Module) -> nn.Module:
    if spec.get("kind") == "adaptive":
        return AdaptiveSoftmax(encoder, **{key: value for key, value in spec.items() if key != "kind"})
    return _make("decoder", {"sequence": SequenceDecoder, "retrieval": RetrievalDecoder}, spec, d_model=d_model)


def _make(part: str, kinds: Mapping[str, type[nn.Module]], spec: dict[str, Any], **extra: Any) -> nn.Module:
    kind = spec.pop("kind", None)
    if kind not in kinds:
        raise UserError(f"unknown {part} {kind!r}; there are {', '.join(kinds)}")
    try:
        return kinds[kind](**spec, **extra)
    except TypeError as error:
        raise UserError(f"the description of the {part} does not fit: {error}") from error


def save(network: Network, path: str | PathLike[str]) -> None:
    """Write ``network`` to one safetensors file, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "config": json.dumps(network.spec, sort_keys=True)})


def load(path: str | PathLike[str]) -> Network:
    """Read a network that :func:`save` wrote, in evaluation mode, on the CPU.

    Raises:
        UserError: no such file, not a network of ours, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"no network file at {path}") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); save the network again") from error
    if header.get("format") != FORMAT or "config" not in header:
        raise UserError(f"{path} holds no network: its header does not say {FORMAT}")
    network = build(json.loads(header["config"]), tensors)
    return network.eval()


def build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """The network of a description with these weights; an SDN is taken from the weights, not from its file.

    Raises:
        UserError: description and weights do not belong together.
    """
    try:
        model = dict(spec["model"])
        model["layer"] = with_sdn_from(tensors, model.get("layer", {}))
        network = Network({**spec, "model": model})
    except KeyError as error:
        raise UserError(f"the description of the network lacks {error}") from error
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"the weights do not fit the description of the network: {detail}") from error
    return network
