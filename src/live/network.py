"""A trained network as plain data for the page: sizes, options, and one block of float32 weights."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.spike.adaptive import AdaptiveSoftmax
from models.spike.constants import FoldedNorm, step_constants
from models.spike.heads import LinearEncoder, RetrievalDecoder, refuse_windows
from models.spike.network import Network
from sdn.errors import UserError

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
    step = step_constants(network.backbone, "event_engine")
    norm, eps, scale, shift = _norms(step.norms)
    encoder = network.encoder
    linear = isinstance(encoder, LinearEncoder)
    arrays = {
        "encoder_weight": encoder.weight.T if linear else encoder.weight,
        "encoder_bias": encoder.bias if linear else encoder.weight.new_zeros(0),
        "a_re": step.A.real,
        "a_im": step.A.imag,
        "c_re": step.drive.real,
        "c_im": step.drive.imag,
        "D": step.D,
        "tau": step.tau,
        "u_r": step.u_r,
        "mix": step.weight.transpose(1, 2),  # (n, H, 2H): what a spike adds lies together
        "mix_bias": step.bias,
        "scale": scale,
        "shift": shift,
        "decoder_weight": network.decoder.output.weight,
        "decoder_bias": network.decoder.output.bias,
    }
    model = {
        "layers": len(step.D),
        "width": network.backbone.d_model,
        "modes": step.A.shape[-1],
        "inputs": encoder.in_features if linear else 1,
        "classes": network.decoder.output.out_features,
        "encoder": "linear" if linear else "embedding",
        "tokens": None if linear else encoder.num_embeddings,
        "prenorm": network.backbone.prenorm,
        "norm": norm,
        "eps": eps,
        "reset": "soft" if step.soft else "hard",
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
    refuse_windows(network.encoder)
    output = getattr(decoder, "output", None)
    if output is not None and output.out_features > MOST_CLASSES:
        raise UserError(f"{output.out_features:,} classes are too many for a page, which shows a bar for each of them")


def _norms(norms: list[FoldedNorm]) -> tuple[str, float, Tensor, Tensor]:
    """``(kind, eps, scale (n, H), shift (n, H))``; a batch norm is its scale and shift, "affine"."""
    scale, shift = (torch.stack([getattr(norm, name) for norm in norms]) for name in ("scale", "shift"))
    empty = scale.new_zeros(0)
    return (norms[0].kind, norms[0].eps, *((empty, empty) if norms[0].kind == "none" else (scale, shift)))
