"""A trained network as plain data for the page: sizes, options, and one block of float32 weights."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.spike.adaptive import AdaptiveSoftmax
from models.spike.export import StepGraph
from models.spike.heads import LinearEncoder, RetrievalDecoder
from models.spike.network import Network
from sdn.errors import UserError
from sdn.neurons import LIF, SDNNeuron

MOST_CLASSES = 256
"""A page shows a bar a class."""


def pack(values: NDArray) -> str:
    """The bytes of an array, little-endian, as base64."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def description(network: Network, dtype: type = np.float32) -> dict[str, Any]:
    """``{"model": sizes and options, "shapes": [[name, shape], ...], "weights": base64}``, as ``engine.js`` reads it.

    Args:
        dtype: of the weights; float64 for a comparison without rounding.

    Raises:
        UserError: the network does not run on a page; one sentence says why.
    """
    _refuse(network)
    graph = StepGraph(network)
    norm, eps, scale, shift = _norms(graph)
    encoder = network.encoder
    linear = isinstance(encoder, LinearEncoder)
    arrays = {
        "encoder_weight": encoder.weight.T if linear else encoder.weight,
        "encoder_bias": encoder.bias if linear else encoder.weight.new_zeros(0),
        **{name: getattr(graph, name) for name in ("a_re", "a_im", "c_re", "c_im", "D", "tau", "u_r")},
        "mix": graph.weight.transpose(1, 2),  # (n, H, 2H): what a spike adds lies together
        "mix_bias": graph.bias,
        "scale": scale,
        "shift": shift,
        "decoder_weight": network.decoder.output.weight,
        "decoder_bias": network.decoder.output.bias,
    }
    model = {
        "layers": graph.n_layers,
        "width": graph.d_model,
        "modes": graph.n_modes,
        "inputs": encoder.in_features if linear else 1,
        "classes": network.decoder.output.out_features,
        "encoder": "linear" if linear else "embedding",
        "tokens": None if linear else encoder.num_embeddings,
        "prenorm": graph.prenorm,
        "norm": norm,
        "eps": eps,
        "reset": "soft" if graph.soft else "hard",
        "decoder": getattr(network.decoder, "mode", "per_step"),
    }
    packed = [(name, value.detach().cpu().contiguous().numpy().astype(dtype)) for name, value in arrays.items()]
    if bad := [name for name, values in packed if not np.isfinite(values).all()]:
        raise UserError(f"the network holds weights that are no finite numbers ({bad[0]}); train it again")
    return {
        "model": model,
        "shapes": [[name, list(values.shape)] for name, values in packed],
        "weights": pack(np.concatenate([values.ravel() for _, values in packed])),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _refuse(network: Network) -> None:
    decoder = network.decoder
    if isinstance(decoder, AdaptiveSoftmax):
        raise UserError(
            "a language model predicts a word of a large vocabulary at every step; a page shows a bar a class, so only "
            "classifiers of sequences or of steps become one"
        )
    if isinstance(decoder, RetrievalDecoder):
        raise UserError("retrieval compares two finished texts; there is nothing for a page to show step by step")
    for layer in network.backbone.layers:
        if not isinstance(layer.neuron, (LIF, SDNNeuron)):
            raise UserError(
                f"the page's engine runs leaky integrate-and-fire neurons (sdn, sltt, bptt), not "
                f"{type(layer.neuron).__name__}; export the network as .onnx or .safetensors"
            )
    output = getattr(decoder, "output", None)
    if output is not None and output.out_features > MOST_CLASSES:
        raise UserError(f"{output.out_features:,} classes are too many for a page, which shows a bar for each of them")


def _norms(graph: StepGraph) -> tuple[str, float, Tensor, Tensor]:
    """``(kind, eps, scale (n, H), shift (n, H))``; a batch norm is its scale and shift."""
    first = graph.norms[0]
    if first.layer is not None:
        layers = [norm.layer for norm in graph.norms]
        return "layer", layers[0].eps, *(torch.stack([getattr(x, n) for x in layers]) for n in ("weight", "bias"))
    if first.folded:
        return "affine", 0.0, *(torch.stack([getattr(norm, n) for norm in graph.norms]) for n in ("scale", "shift"))
    return "none", 0.0, graph.D.new_zeros(0), graph.D.new_zeros(0)
