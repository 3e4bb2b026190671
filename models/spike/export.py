"""Leaving PyTorch: the step of a causal network as a graph of real tensors, for ONNX, torch.compile and other runtimes.

FFTs and complex numbers stop most exporters, the recurrence needs neither. :class:`StepGraph` holds every constant of
:meth:`SpikingSSM.step` as real buffers::

    h = A h + B x  as  re, im = a_re re - a_im im + b_re x, a_re im + a_im re + b_im x
    I = 2 Re(C h) + D x

and takes and returns its state as plain tensors, stacked over layers.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdn.errors import UserError
from sdn.files import atomic_path
from sdn.typed import Modules

from .constants import FoldedNorm, step_constants
from .heads import LinearEncoder, SequenceDecoder, StepDecoder, refuse_windows
from .network import Network

STATE: tuple[str, ...] = ("modes_re", "modes_im", "membrane", "summary", "count")
"""Names of the state tensors: ``(n, B, H, N)`` twice, ``(n, B, H)``, ``(B, H)`` in float64 and ``(1,)`` in int64. In
float32 the last two would count, and sum up, no further than to 2^24 samples."""


class StepGraph(nn.Module):
    """``(x_t, *state) -> (logits_t, *state)`` for one sample of a causal network.

    ``x_t`` is ``(B, d_input)``, or ids ``(B,)`` behind an embedding; logits ``(B, C)`` are those of the samples so
    far, or of this sample if the network decodes every step.
    The neuron is the exact recurrence, whatever the network was trained with.

    Raises:
        UserError: bidirectional layers, neurons that the graph cannot compute, or a decoder without a streaming form.
    """

    a_re: Tensor
    a_im: Tensor
    c_re: Tensor
    c_im: Tensor
    D: Tensor
    weight: Tensor
    bias: Tensor
    tau: Tensor
    u_r: Tensor

    def __init__(self, network: Network, rate: float = 1.0) -> None:
        super().__init__()
        if not isinstance(network.decoder, (SequenceDecoder, StepDecoder)):
            raise UserError("only a network that decodes sequences or every step can be exported as a step")
        refuse_windows(network.encoder)
        backbone = network.backbone
        constants = step_constants(backbone, "onnx", rate)
        self.n_layers, self.prenorm, self.d_model = len(backbone.layers), backbone.prenorm, backbone.d_model
        self.n_modes = constants.A.shape[-1]
        self.pool = isinstance(network.decoder, SequenceDecoder) and network.decoder.mode == "pool"
        self.encoder, self.output = network.encoder, network.decoder.output
        for name, values in {
            "a_re": constants.A.real,
            "a_im": constants.A.imag,
            "c_re": constants.drive.real,
            "c_im": constants.drive.imag,
            "D": constants.D,
            "weight": constants.weight,
            "bias": constants.bias,
            "tau": constants.tau,
            "u_r": constants.u_r,
        }.items():
            self.register_buffer(name, values.clone(memory_format=torch.contiguous_format))
        self.soft = constants.soft
        self.norms = Modules(_StepNorm(norm) for norm in constants.norms)
        self.eval().requires_grad_(False)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Zeros, in the order of :data:`STATE`."""
        zeros = self.D.new_zeros
        modes = (self.n_layers, batch, self.d_model, self.n_modes)
        summary, count = zeros(batch, self.d_model, dtype=torch.float64), zeros(1, dtype=torch.int64)
        return zeros(modes), zeros(modes), zeros(modes[:3]), summary, count

    def forward(
        self, x: Tensor, modes_re: Tensor, modes_im: Tensor, membrane: Tensor, summary: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        x = self.encoder(x)
        all_re, all_im, all_u = [], [], []
        for i, norm in enumerate(self.norms):
            z = norm(x) if self.prenorm else x
            re = self.a_re[i] * modes_re[i] - self.a_im[i] * modes_im[i] + z.unsqueeze(-1)
            im = self.a_re[i] * modes_im[i] + self.a_im[i] * modes_re[i]
            current = (self.c_re[i] * re - self.c_im[i] * im).sum(-1) + self.D[i] * z
            s, u = self.neuron(i, current, membrane[i])
            z = F.glu(F.linear(s, self.weight[i], self.bias[i]), -1)
            x = x + z if self.prenorm else norm(x + z)
            all_re.append(re)
            all_im.append(im)
            all_u.append(u)
        count = count + 1
        summary = summary + x.double() if self.pool else x.double()
        logits = self.output((summary / count).to(x.dtype) if self.pool else x)
        return logits, torch.stack(all_re), torch.stack(all_im), torch.stack(all_u), summary, count

    def neuron(self, i: int, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """``(I_t, u_{t-1}) -> (s_t, u_t)`` of layer i, all ``(B, H)``."""
        before = self.tau[i] * membrane + current
        s = (before >= 1).to(before.dtype)
        return s, before - s if self.soft else before * (1 - s) + self.u_r[i] * s


class _StepNorm(nn.Module):
    """A norm of one sample ``(B, H)``; batch norm folded to its scale and shift."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: FoldedNorm) -> None:
        super().__init__()
        self.kind, self.eps = norm.kind, norm.eps
        self.register_buffer("scale", norm.scale.clone())
        self.register_buffer("shift", norm.shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)
        return x * self.scale + self.shift if self.kind == "affine" else x


def example(network: Network, batch: int = 1) -> Tensor:
    """An input of one step: zeros ``(batch, d_input)``, or ids ``(batch,)``."""
    if isinstance(network.encoder, LinearEncoder):
        return network.encoder.weight.new_zeros(batch, network.encoder.in_features)
    return torch.zeros(batch, dtype=torch.long)


def export_onnx(network: Network, path: str | PathLike[str], batch: int = 1, rate: float = 1.0) -> Path:
    """Write the step as an ONNX graph: inputs ``x`` and the state, outputs ``logits`` and the state as ``next_*``.

    ``rate`` is the sampling step of its streams in units of the training data's.
    The network's facts are the model's metadata, a key each, text as it is and everything else as JSON.

    Needs the packages onnx and onnxscript (requirements-export.txt).

    Raises:
        UserError: the packages are missing, or the network has no step.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("ONNX export needs two packages: pip install onnx onnxscript") from error
    graph = StepGraph(network.eval(), rate)
    with atomic_path(path) as temporary:
        torch.onnx.export(
            graph,
            (example(network, batch), *graph.initial_state(batch)),
            str(temporary),
            input_names=["x", *STATE],
            output_names=["logits", *(f"next_{name}" for name in STATE)],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        model = onnx.load(str(temporary))
        for key, value in network.facts.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=text))
        onnx.save(model, str(temporary))
    return Path(path)


def export_parallel(network: Network, length: int, batch: int = 1) -> torch.export.ExportedProgram:
    """The parallel form as a ``torch.export`` program for inputs of ``length`` samples."""
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    x = example(network, batch).unsqueeze(1).repeat_interleave(length, 1)
    with torch.no_grad():
        return torch.export.export(frozen, (x,))


def assert_same(network: Network, inputs: Sequence[Tensor], outputs: Sequence[Tensor], atol: float = 1e-4) -> None:
    """Check ``outputs``, logits of another runtime after each of ``inputs``, against ``network.step``.

    Raises:
        UserError: they differ by more than ``atol`` somewhere.
    """
    state = network.initial_state(inputs[0].shape[0])
    for t, (x, theirs) in enumerate(zip(inputs, outputs, strict=True)):
        ours, state = network.step(x, state)
        worst = float((ours - theirs).abs().max())
        if not worst <= atol:
            raise UserError(f"the exported step differs from the network by {worst:.2g} at sample {t}")
