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
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sdn.checksum import load_tensors, save_tensors
from sdn.errors import UserError, reason
from sdn.named import require_allowed

from .adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from .gate import check_input, check_sample
from .heads import (
    ConvEncoder,
    EmbeddingEncoder,
    LinearEncoder,
    RetrievalDecoder,
    SequenceDecoder,
    StepDecoder,
    Summary,
    Windows,
    encode,
    refuse_windows,
)
from .hub import OnHub
from .lengths import check_lengths
from .options import whole
from .quick_step import quick_step
from .shipped import locate
from .ssm import SpikingSSM, with_sdn_from
from .state import State

FORMAT = "spikingssm-network-1"
Encoder: TypeAlias = LinearEncoder | EmbeddingEncoder | ConvEncoder | AdaptiveEmbedding
Decoder: TypeAlias = SequenceDecoder | StepDecoder | RetrievalDecoder | AdaptiveSoftmax
Part = TypeVar("Part", bound=nn.Module)


class NetworkState(NamedTuple):
    """Where a stream stands: the backbone's state and the decoder's running summary (None before the first sample).

    With an encoder of windows also what it has read of the next one, and the answer that holds until then.
    """

    layers: State
    summary: Summary | None = None
    windows: Windows | None = None
    answer: Tensor | None = None


class Network(OnHub, nn.Module):
    """``forward(x, lengths=None, rate=1.0)`` -> logits; ``step(x_t, state)`` -> (logits after t samples, state).

    Args:
        spec: the description above.
        backbone: what ``spec["model"]`` describes, if it is built already (:func:`build` gives SDNs their weights so).

    Raises:
        UserError: an unknown kind or option.
    """

    def __init__(self, spec: Mapping[str, Any], backbone: SpikingSSM | None = None) -> None:
        super().__init__()
        self.spec = json.loads(json.dumps(spec))
        if not isinstance(self.spec.get("facts", {}), dict):
            raise UserError("the facts of a network are a mapping of names to values")
        self.backbone = SpikingSSM(**self.spec["model"]) if backbone is None else backbone
        self.encoder = _encoder(dict(self.spec["encoder"]), self.backbone.d_model)
        self.decoder = _decoder(dict(self.spec["decoder"]), self.backbone.d_model, self.encoder)

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the network: experiment, accuracy, date, whatever was saved with it."""
        return self.spec.get("facts", {})

    def forward(self, x: Tensor, lengths: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """``x (B, L, d_input)``, or token ids ``(B, L)`` -> logits ``(B, C)``, of a decoder per step
        ``(B, L, C)``; log-probabilities ``(B, L, V)`` of a language model.

        Without ``lengths (B,)`` every step is real.

        Raises:
            UserError: lengths outside 1 .. L.
        """
        if isinstance(x, Tensor) and x.ndim > 1:  # else the encoder's gate refuses it
            check_lengths(lengths, *x.shape[:2])
        x, lengths = encode(self.encoder, x, lengths)
        h, _ = self.backbone(x, lengths=lengths, rate=rate)
        return self.decoder.log_prob(h) if isinstance(self.decoder, AdaptiveSoftmax) else self.decoder(h, lengths)

    def initial_state(self, batch: int = 1) -> NetworkState:
        """The state before the first sample."""
        if isinstance(self.decoder, RetrievalDecoder):
            raise _refuse_pairs()
        if not hasattr(self.encoder, "step"):
            refuse_windows(self.encoder)
        whole(0, batch=batch)
        return NetworkState(self.backbone.initial_state(batch))

    def step(
        self, x: Tensor, state: NetworkState, constants: list | None = None, rate: float = 1.0
    ) -> tuple[Tensor, NetworkState]:
        """One sample, ``x (B, d_input)`` or ids ``(B,)`` -> logits ``(B, C)`` of what was seen so far, of a
        decoder per step those of this sample. With an encoder of windows the answer changes after every ``stride``-th
        sample and holds in between; it is 0 before the first.

        ``rate`` is the sampling step in units of the training data's; ``constants``, ``backbone.recurrence(rate)``,
        saves computing them at every sample. On a CPU a network whose weights stay as they are steps through compiled
        code after a few samples, see :mod:`models.spike.quick_step`.

        Raises:
            UserError: NaN or infinity in the sample, a state of another batch size.
        """
        if not isinstance(state, NetworkState):
            raise UserError(f"a network goes on from a NetworkState, not from {state!r}; start with initial_state()")
        if constants is None and (quick := quick_step(self, x, state, rate)) is not None:
            return quick[0], NetworkState(*quick[1:])
        return self._plain_step(x, state, constants, rate)

    @torch.no_grad()
    def _plain_step(
        self, x: Tensor, state: NetworkState, constants: list | None, rate: float
    ) -> tuple[Tensor, NetworkState]:
        if isinstance(self.encoder, ConvEncoder):
            return self._step_of_windows(self.encoder, x, state, constants, rate)
        check_input(self.encoder, x, 2)
        return self._answer(self.encoder(x), state, constants, rate)

    def _answer(
        self, x: Tensor, state: NetworkState, constants: list | None, rate: float
    ) -> tuple[Tensor, NetworkState]:
        """One step of backbone and decoder."""
        h, layers = self.backbone.step(x, state.layers, constants, rate)
        if isinstance(self.decoder, AdaptiveSoftmax):
            return self.decoder.log_prob(h), NetworkState(layers)
        if isinstance(self.decoder, RetrievalDecoder):
            raise _refuse_pairs()
        logits, summary = self.decoder.step(h, state.summary)
        return logits, NetworkState(layers, summary)

    def _step_of_windows(
        self, encoder: ConvEncoder, x: Tensor, state: NetworkState, constants: list | None, rate: float
    ) -> tuple[Tensor, NetworkState]:
        """One sample; the backbone steps where a window ends."""
        check_sample(x, [*state.layers, *([] if state.windows is None else [(state.windows.recent,)])])
        h, windows = encoder.step(x, state.windows)
        if h is None:
            answer = self._no_answer(len(x)) if state.answer is None else state.answer
            return answer, state._replace(windows=windows, answer=answer)
        answer, after = self._answer(h, state, constants, rate)
        return answer, after._replace(windows=windows, answer=answer)

    def _no_answer(self, batch: int) -> Tensor:
        if not isinstance(self.decoder, (SequenceDecoder, StepDecoder)):
            raise _refuse_pairs()
        return self.decoder.output.weight.new_zeros(batch, self.decoder.output.out_features)


def _refuse_pairs() -> UserError:
    return UserError("retrieval compares two finished texts; it has no answer after every sample to stream")


def _encoder(spec: dict[str, Any], d_model: int) -> Encoder:
    kinds: dict[str, type[Encoder]] = {
        "linear": LinearEncoder,
        "embedding": EmbeddingEncoder,
        "conv": ConvEncoder,
        "adaptive": AdaptiveEmbedding,
    }
    return _make("encoder", kinds, spec, d_model=d_model)


def _decoder(spec: dict[str, Any], d_model: int, encoder: Encoder) -> Decoder:
    if spec.get("kind") == "adaptive":
        if not isinstance(encoder, AdaptiveEmbedding):
            raise UserError("an adaptive decoder shares the words of an adaptive encoder; describe both as adaptive")
        return AdaptiveSoftmax(encoder, **{key: value for key, value in spec.items() if key != "kind"})
    kinds: dict[str, type[Decoder]] = {
        "sequence": SequenceDecoder,
        "per_step": StepDecoder,
        "retrieval": RetrievalDecoder,
    }
    return _make("decoder", kinds, spec, d_model=d_model)


def _make(part: str, kinds: Mapping[str, type[Part]], spec: dict[str, Any], **extra: Any) -> Part:
    kind = spec.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"unknown {part} {kind!r}; there are {', '.join(kinds)}")
    try:
        return kinds[kind](**spec, **extra)
    except TypeError as error:
        raise UserError(f"the description of the {part} does not fit: {error}") from error


def save(network: Network, path: str | PathLike[str]) -> None:
    """Write ``network`` to one safetensors file with a checksum, atomically.

    Raises:
        UserError: it is no network, or the file cannot be written.
    """
    if not isinstance(network, Network):
        raise UserError(f"this writes a models.spike.Network, not {type(network).__name__}; keep others by torch.save")
    save_tensors(path, network.state_dict(), {"format": FORMAT, "config": json.dumps(network.spec, sort_keys=True)})


def load(path: str | PathLike[str]) -> Network:
    """Read a network that :func:`save` wrote, in evaluation mode, on the CPU.

    Args:
        path: its file, or the name of a network that ships, such as ``"digits"`` (:mod:`models.spike.shipped`).

    Raises:
        UserError: no such file, not a network of ours, damaged, or it names classes nobody vouches for
            (:mod:`sdn.named`; import their module first, or call ``sdn.named.allow``).
    """
    path = locate(path)
    try:
        tensors, header = load_tensors(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"no network file at {path}") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); save the network again") from error
    if header.get("format") != FORMAT or "config" not in header:
        raise UserError(f"{path} holds no network: its header does not say {FORMAT}")
    try:
        spec = json.loads(header["config"])
    except (ValueError, RecursionError) as error:
        raise UserError(f"the header of {path} is damaged ({error}); save the network again") from error
    if not isinstance(spec, dict):
        raise UserError(f"the header of {path} is damaged: it describes no network; save the network again")
    require_allowed({part: spec.get(part) for part in ("model", "encoder", "decoder")}, path)
    return build(spec, tensors).eval()


def build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    """The network of a description with these weights; an SDN is taken from the weights, not from its file.

    Raises:
        UserError: description and weights do not belong together.
    """
    try:
        model = dict(spec["model"])
        model["layer"] = with_sdn_from(tensors, model.get("layer", {}))
        _check_depth(model, tensors)
        with torch.device("meta"):  # nothing is allocated before the shapes are those of the file
            sketch = Network(spec, SpikingSSM(**model))
        _check_shapes(sketch, tensors)
        model["layer"] = with_sdn_from(tensors, spec["model"].get("layer", {}))
        network = Network(spec, SpikingSSM(**model))
    except KeyError as error:
        raise UserError(f"the description of the network lacks {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
        raise UserError(f"the description of the network is damaged ({reason(error)})") from error
    _check_shapes(network, tensors)
    _check_numbers(network, tensors)
    network.load_state_dict(dict(tensors))
    return network


def _check_depth(model: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """A description may ask for a thousand million layers."""
    found = {name.split(".")[2] for name in tensors if name.startswith("backbone.layers.")}
    if isinstance(model.get("n_layers"), int) and model["n_layers"] != len(found):
        raise UserError(f"the weights are of {len(found)} layers, the description of {model['n_layers']}")


def _check_numbers(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, value in network.state_dict().items():
        if tensors[name].is_floating_point() != value.is_floating_point():
            raise UserError(f"the weights {name} are of {tensors[name].dtype}, not of {value.dtype}; save them again")
        if value.is_floating_point() and not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"the weights {name} are NaN or infinite: the training went wrong before this was saved")


def _check_shapes(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise UserError(f"the weights do not fit the description of the network: {name} is missing")
        if tensors[name].shape != value.shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(value.shape)}"
            raise UserError(f"the weights do not fit the description of the network: {name} is {shapes}")
    for name in tensors:
        if name not in own:
            raise UserError(f"the weights do not fit the description of the network: {name} has no place")
