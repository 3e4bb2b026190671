"""Labels a step and numbers as targets: each task against a naive loop over sequences, and through a whole run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from models.spike.export import StepGraph, assert_same, export_parallel
from models.spike.network import Network, load, save
from sdn.errors import UserError
from src.tasks.metrics import Totals
from src.tasks.per_step import PerStep
from src.tasks.regression import Regression

SHAPES = SimpleNamespace(d_input=2, d_output=3, n_tokens=None, l_max=9)


def _ragged() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    lengths = torch.tensor([9, 1, 4, 6])
    output, y = torch.randn(4, 9, 3), torch.randint(3, (4, 9))
    y[0, 3] = -1  # no label
    for row, n in enumerate(lengths):
        output[row, n:], y[row, n:] = float("nan"), 77  # whatever stands in the padding does not matter
    return output, y, lengths


def test_every_real_step_counts_once_over_ragged_batches():
    output, y, lengths = _ragged()
    losses, right = [], []
    for row, n in enumerate(lengths.tolist()):
        for t in range(n):
            if y[row, t] >= 0:
                losses.append(-output[row, t].log_softmax(-1)[y[row, t]].item())
                right.append(float(output[row, t].argmax() == y[row, t]))
    task, totals = PerStep(SHAPES, 5), Totals()
    for part in (slice(0, 3), slice(3, 4)):
        totals.add(task(output[part], y[part], {"lengths": lengths[part]}))
    means = totals.means()
    assert means["loss"] == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert means["accuracy"] == pytest.approx(sum(right) / len(right))


def test_repeated_samples_do_not_count_and_padding_has_no_gradient():
    output, y, lengths = _ragged()
    output = output.nan_to_num(0.5).requires_grad_()
    task, z = PerStep(SHAPES, 5), {"lengths": lengths, "weight": torch.tensor([1.0, 1, 0, 1])}
    sums = task(output, y, z)
    kept = [0, 1, 3]
    for name, pair in task(output[kept], y[kept], {"lengths": lengths[kept]}).items():
        torch.testing.assert_close(torch.stack(pair), torch.stack(sums[name]))
    sums["loss"][0].backward()
    counts = task.counted(output, y, z)
    assert torch.equal(output.grad.abs().sum(-1) > 0, counts)
    assert task.predictions(output)[counts].shape == y[counts].shape


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_squared_and_absolute_error_of_what_counts(per_step: bool, squeeze: bool):
    torch.manual_seed(0)
    k = 1 if squeeze else 2
    shape = (4, 9, k) if per_step else (4, k)
    output, y = torch.randn(shape), torch.randn(shape, dtype=torch.float64)
    z = {"weight": torch.tensor([1.0, 0, 1, 1])}
    rows = [0, 2, 3]
    if per_step:
        z["lengths"] = torch.tensor([9, 2, 1, 5])
        y[2, 1:] = float("nan")
    pieces = [output[i, : z["lengths"][i]] - y[i, : z["lengths"][i]] if per_step else output[i] - y[i] for i in rows]
    errors = torch.cat([piece.reshape(-1) for piece in pieces])
    task, totals = Regression(SHAPES, 5), Totals()
    totals.add(task(output, y.squeeze(-1) if squeeze else y, z))
    means = task.report(totals.means())
    assert means["mse"] == means["loss"] == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert means["mae"] == pytest.approx(errors.abs().mean().item(), rel=1e-5)


def test_targets_of_another_kind_are_refused_in_a_sentence():
    with pytest.raises(UserError, match="decoder=per_step"):
        PerStep(SHAPES, 5)(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), {})
    with pytest.raises(UserError, match="decoder=per_step"):
        Regression(SHAPES, 5)(torch.zeros(2, 3), torch.zeros(2, 9, 3), {})


# -- stream, export ------------------------------------------------------------------------------------------------


def _network(**decoder: object) -> Network:
    torch.manual_seed(0)
    spec = {
        "model": {"d_model": 8, "n_layers": 2, "prenorm": True, "layer": {"neuron": "sltt", "d_state": 8}},
        "encoder": {"kind": "linear", "d_input": 2},
        "decoder": {"kind": "per_step", "d_output": 3} | decoder,
    }
    return Network(spec).eval()


def test_every_step_is_answered_as_it_comes(tmp_path):
    network = _network().double()
    x = torch.randn(2, 40, 2, dtype=torch.float64)
    whole, state = network(x), network.initial_state(2)
    graph = StepGraph(network)
    memory, outputs = graph.initial_state(2), []
    for t in range(40):
        answer, state = network.step(x[:, t], state)
        torch.testing.assert_close(answer, whole[:, t], rtol=0, atol=1e-10)
        answer, *memory = graph(x[:, t], *memory)
        outputs.append(answer)
    assert_same(network, x.unbind(1), outputs, atol=1e-10)
    network = _network()
    save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    x = x.float()
    assert torch.equal(again(x), network(x))
    torch.testing.assert_close(export_parallel(again, 40).module()(x[:1]), again(x[:1]).detach())


@pytest.mark.parametrize("decoder", [{}, {"kind": "sequence", "mode": "pool"}, {"kind": "sequence", "mode": "last"}])
def test_onnx_runtime_answers_as_the_network_does(tmp_path, decoder: dict):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from models.spike.export import STATE, export_onnx

    network = _network(**decoder)
    export_onnx(network, tmp_path / "step.onnx")
    session = runtime.InferenceSession(str(tmp_path / "step.onnx"))
    names = {value.name for value in session.get_inputs()}
    x, outputs = torch.randn(60, 1, 2), []
    state = dict(zip(STATE, (v.numpy() for v in StepGraph(network).initial_state()), strict=True))
    for x_t in x:
        given = {name: value for name, value in {"x": x_t.numpy(), **state}.items() if name in names}
        logits, *after = session.run(None, given)
        state = dict(zip(STATE, after, strict=True))
        outputs.append(torch.from_numpy(logits))
    assert_same(network, x, outputs)
