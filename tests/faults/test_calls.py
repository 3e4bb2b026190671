"""Calls that cannot be answered."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import models.spike as ms
import sdn
from sdn.errors import UserError
from sdn.kernels import use

KINDS = ("sdn", "sltt", "bptt", "alif", "gelu", "resonate", "sliding_psn")
NAN, INF = math.nan, math.inf
CURRENT = torch.randn(2, 3, 17, generator=torch.Generator().manual_seed(0)) * 1.5
X = torch.randn(4, 9, 2, generator=torch.Generator().manual_seed(1))


def spec(**layer: Any) -> dict[str, Any]:
    model = {"d_model": 8, "n_layers": 2, "layer": {"d_state": 4, "neuron": "sltt", **layer}}
    head = {"encoder": {"kind": "linear", "d_input": 2}, "decoder": {"kind": "sequence", "d_output": 3}}
    return {"model": model, **head}


@pytest.fixture(scope="module")
def network() -> ms.Network:
    torch.manual_seed(0)
    return ms.Network(spec()).eval()


def neuron(kind: str) -> sdn.Neuron:
    return sdn.make_neuron(kind, d_model=3)


# -- neurons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_a_neuron_are_the_neuron(kind: str):
    one = neuron(kind)
    other = neuron(kind)
    other.load_state_dict(one.state_dict())
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), other):
        assert torch.equal(copied(CURRENT), one(CURRENT))
    for shape in ((2, 3, 0), (0, 3, 5), (2, 3, 1)):
        assert one(torch.ones(shape)).shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_a_neuron_by_all_ways(kind: str):
    n = neuron(kind)
    with use("reference"):
        x = CURRENT.clone().requires_grad_()
        n(x).sum().backward()

    def near(found: Tensor) -> bool:
        return torch.allclose(found, x.grad, atol=1e-4)

    assert near(torch.func.grad(lambda x: n(x).sum())(CURRENT))
    assert near(torch.func.jacrev(lambda x: n(x).sum((0, 1)))(CURRENT).sum(0))
    assert near(torch.func.vmap(torch.func.grad(lambda x: n(x[None]).sum()))(CURRENT))
    along = torch.func.jvp(n, (CURRENT,), (torch.ones_like(CURRENT),))[1].sum()
    assert torch.allclose(along, x.grad.sum(), rtol=1e-3)
    assert torch.allclose(torch.func.vmap(lambda x: n(x[None])[0])(CURRENT), n(CURRENT), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_neuron_refuses(kind: str):
    n = neuron(kind)
    calls: dict[str, Callable[[], object]] = {
        "int": lambda: n(CURRENT.int()),
        "complex": lambda: n(CURRENT.cfloat()),
        "v_th 0": lambda: n(CURRENT, torch.zeros(3)),
        "v_th NaN": lambda: n(CURRENT, torch.full((3,), NAN)),
        "v_th of another size": lambda: n(CURRENT, torch.ones(2)),
    }
    if kind != "gelu":
        for batch in (1, 5):
            state = n.initial_state(batch, 3)
            calls[f"scan from a state of {batch}"] = lambda state=state: n.scan(CURRENT, state)
            calls[f"step from a state of {batch}"] = lambda state=state: n.step(CURRENT[..., 0], state)
    for name, call in calls.items():
        with pytest.raises(UserError) as refusal:
            call()
        assert "\n" not in str(refusal.value), name


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_chunk_changes_nothing(kind: str):
    n = neuron(kind)
    whole, _ = n.scan(CURRENT, n.initial_state(2, 3))
    one, state = n.scan(CURRENT[..., :5], n.initial_state(2, 3))
    none, state = n.scan(CURRENT[..., 5:5], state)
    two, state = n.scan(CURRENT[..., 5:], state)
    assert torch.allclose(torch.cat([one, none, two], -1), whole, atol=1e-6)


@pytest.mark.parametrize("options", [{"tau": v} for v in (0, 1, -1, NAN, "x", None, 10**400)] + [
    {"reset": "foo"}, {"reset": None}, {"reset": []}, {"surrogate": "foo"}, {"width": 0}, {"width": NAN},
    {"width": "a"}, {"u_r": 1}, {"u_r": NAN}, {"u_r": "a"}, {"u_r": None},
])  # fmt: skip
def test_options_of_a_neuron_that_cannot_be(options: dict[str, Any]):
    with pytest.raises(UserError):
        sdn.make_neuron("bptt", d_model=3, **options)


@pytest.mark.parametrize("name", [5, None, [], {}, {"_name_": "os.system"}, "os.system", nn.Linear])
def test_names_of_a_neuron_that_cannot_be(name: object):
    with pytest.raises(UserError):
        sdn.make_neuron(name, d_model=3)


@pytest.mark.parametrize("source", [None, [], 5, "", "nope", NAN, 0.3, -1, 10**400])
def test_sources_of_an_sdn_that_cannot_be(source: object):
    with pytest.raises(UserError):
        sdn.load_reduced(source)


# -- networks -------------------------------------------------------------------------------------------------------

OPTIONS = [{name: value} for name, values in {
    "d_model": (0, -1, 2.5, "8", None, True),
    "n_layers": (0, -1, None, 1.0, True),
    "dropout": (-1, 1.5, NAN, "a", None),
    "norm": ("x", 5),
    "prenorm": ("no", 1, None),
    "mask_padding": (3, "false"),
    "layer": (5, {"foo": 1}, {"d_state": 3}, {"d_state": "a"}, {"d_state": 4.0}, {"dt_min": 0}, {"dt_min": NAN},
              {"dt_min": 1, "dt_max": 0.1}, {"lr": -1}, {"lr": NAN}, {"bidirectional": "yes"}, {"shared_vth": 1}),
}.items() for value in values]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_a_network_that_cannot_be(options: dict[str, Any]):
    with pytest.raises(UserError):
        ms.SpikingSSM(**{"d_model": 8, "n_layers": 1, **options})


def test_inputs_that_a_network_does_not_read(network: ms.Network):
    ids = ms.Network({**spec(), "encoder": {"kind": "embedding", "n_tokens": 5}}).eval()
    calls = [lambda x=x: network(x) for x in (
        torch.randn(4, 9, 3), torch.randn(4, 9), torch.ones(4, 9, 2, dtype=torch.long), X.double(), X.numpy(), X[:, :0],
    )]  # fmt: skip
    calls += [lambda x=x: ids(x) for x in (X[..., 0], torch.full((4, 9), 5), torch.full((4, 9), -1), torch.ones(4))]
    lengths = ([0, 9, 9, 9], [9, 9, 9, 10], [-1, 9, 9, 9], [9, 9, 9], [9.0, 9, 9, 9], [[9, 9, 9, 9]])
    calls += [lambda n=n: network(X, torch.tensor(n)) for n in lengths]
    calls += [lambda: network(X, [9] * 4), lambda: network(X, np.array([9] * 4))]
    for rate in (0, -1, NAN, INF, "a", None, [1], True):
        calls += [lambda r=rate: network(X, None, r), lambda r=rate: ms.StreamEngine(network, 1, r)]
        calls += [lambda r=rate: network.step(X[:, 0], network.initial_state(4), rate=r)]
        calls += [lambda r=rate: ms.EventEngine(network.backbone, rate=r)]
    for number, call in enumerate(calls):
        with pytest.raises(UserError) as refusal:
            call()
        assert "\n" not in str(refusal.value), number
    assert network(X[:0]).shape == (0, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(X.bfloat16()).shape == (4, 3)


def test_states_that_are_of_another_stream(network: ms.Network):
    start, layers = network.initial_state(4), network.backbone.initial_state(4)
    other = ms.Network({**spec(), "model": {"d_model": 6, "n_layers": 2, "layer": {"d_state": 4, "neuron": "sltt"}}})
    h = torch.randn(4, 3, 8)
    calls = [lambda s=s: network.step(X[:, 0], s) for s in (
        None, [], network.initial_state(1), other.initial_state(4), start._replace(layers=layers[:1]),
    )]  # fmt: skip
    calls += [lambda x=x: network.step(x, start) for x in (X[:, 0] * NAN, X[:, 0] / 0, X[:, 0].double(), X)]
    calls += [lambda s=s: network.backbone(h, s) for s in (network.backbone.initial_state(1), layers[:1])]
    calls += [lambda b=b: network.initial_state(b) for b in (-1, 1.5, None, "a")]
    for number, call in enumerate(calls):
        with pytest.raises(UserError) as refusal:
            call()
        assert "\n" not in str(refusal.value), number


def test_what_an_engine_refuses(network: ms.Network, tmp_path: Path):
    engine, model = ms.StreamEngine(network, 4), network.backbone
    state = engine.state()
    event = ms.EventEngine(model)
    calls = [lambda b=b: ms.StreamEngine(network, b) for b in (0, -1, 1.5, "a", None, True)]
    calls += [lambda t=t: ms.StreamEngine(network, 1, 1.0, t) for t in (np.int32, "a", np.float16, np.complex64)]
    calls += [lambda t=t: ms.EventEngine(model, t) for t in (np.int32, "a", np.float16, object)]
    calls += [lambda: ms.StreamEngine(nn.Linear(2, 2)), lambda: ms.EventEngine(nn.Linear(8, 8))]
    calls += [lambda x=x: engine.run(x) for x in (
        X * NAN, X[:2], np.full((4, 3, 2), 1e39), np.full((4, 3, 2), "a"), None, np.ones((4, 3, 2), complex),
    )]  # fmt: skip
    calls += [lambda: engine.run(X[:, :0], every=False)]
    calls += [lambda r=r: engine.reset(r) for r in ([4], [-1], "a", [True], [1.0])]
    calls += [lambda s=s: engine.load_state(s) for s in (
        None, {}, ms.StreamEngine(network, 2).state(), {**state, "membrane": state["membrane"] * NAN},
        {**state, "modes": state["modes"].real}, {**state, "seen": 3}, {**state, "seen": state["seen"] - 1},
    )]  # fmt: skip
    calls += [lambda x=x: event.step(x) for x in (
        np.ones(7), np.full(8, 1e39), np.array(["a"] * 8), np.ones(8) * 1j, np.ones((8, 1)), None,
    )]  # fmt: skip
    calls += [lambda s=s: event.load_state(s) for s in (None, [], model.initial_state(2))]
    calls += [lambda: engine.load(tmp_path), lambda: ms.load(None), lambda: ms.load(5), lambda: ms.load("a\0b")]
    calls += [lambda: ms.save(nn.Linear(2, 2), tmp_path / "x"), lambda: ms.save(network, tmp_path)]
    for number, call in enumerate(calls):
        with pytest.raises(UserError) as refusal:
            call()
        assert "\n" not in str(refusal.value), number
    engine.reset([])
    engine.reset(np.array([True, False, False, True]))
    assert engine.run(X[:, :0]).shape == (4, 0, 3)
    assert all(torch.equal(engine.state()[key], state[key]) for key in state)  # nothing refused has left a trace


def hostile() -> dict[str, Any]:
    good = spec()
    model = good["model"]
    layer = model["layer"]
    found: dict[str, Any] = {
        f"model.{key}={value}": {**good, "model": {**model, key: value}}
        for key, values in {
            "d_model": (10**9, "8", 8.5, -8, True),
            "n_layers": (10**9, None, True),
            "layer": ([1], {"d_state": 10**10}, {**layer, "tau": 10**400}, {"neuron": [1]},
                      {**layer, "bidirectional": "no"}, {"neuron": {"_name_": "os.system"}},
                      {"neuron": {"_name_": "sliding_psn", "k": 10**12}}),
            "norm": (5,), "dropout": (NAN,), "foo": (1,),
        }.items()
        for value in values
    }  # fmt: skip
    for part, values in {
        "encoder": (None, [], {"kind": "linear", "d_input": 10**11}, {"kind": "embedding", "n_tokens": 10**12},
                    {"kind": "conv", "d_input": 2, "kernel": 10**9, "stride": 1}),
        "decoder": ("x", {"kind": "sequence", "d_output": 10**11}),
        "model": (None, [1]), "facts": ([1],),
    }.items():  # fmt: skip
        found |= {f"{part}={value}": {**good, part: value} for value in values}
    return found | {
        "nothing": {},
        "deep": "[" * 100_000,
        "number": "5",
        "null": "null",
        "digits": '{"a":' + "9" * 5000 + "}",
    }


HOSTILE = hostile()


@pytest.mark.parametrize("name", HOSTILE)
def test_descriptions_that_ask_for_what_cannot_be(network: ms.Network, tmp_path: Path, name: str):
    config = HOSTILE[name]
    text = config if isinstance(config, str) else json.dumps(config)
    save_file(network.state_dict(), tmp_path / "net.safetensors", {"format": "spikingssm-network-1", "config": text})
    with pytest.raises(UserError) as refusal:
        ms.load(tmp_path / "net.safetensors")
    assert "\n" not in str(refusal.value)


def test_weights_that_cannot_be(network: ms.Network, tmp_path: Path):
    own = network.state_dict()
    name = "decoder.output.weight"
    for tensors in (
        {key: value for key, value in own.items() if key != name},
        {**own, "more": torch.ones(3)},
        {**own, name: own[name].int()},
        {**own, name: own[name] * NAN},
        {**own, name: own[name][:2].clone()},
    ):
        path = tmp_path / "net.safetensors"
        save_file(tensors, path, {"format": "spikingssm-network-1", "config": json.dumps(spec())})
        with pytest.raises(UserError):
            ms.load(path)


def test_derivatives_of_a_network_by_all_ways(network: ms.Network):
    weights = {name: value.detach() for name, value in network.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(network, weights, (x,)).pow(2).sum()

    network.zero_grad()
    network(X).pow(2).sum().backward()
    truth = {name: value.grad for name, value in network.named_parameters()}
    whole = torch.func.grad(loss)(weights, X)
    each = torch.func.vmap(torch.func.grad(lambda w, x: loss(w, x[None])), (None, 0))(weights, X)
    for name, expected in truth.items():
        assert torch.allclose(whole[name], expected, atol=1e-3, rtol=1e-3), name
        assert torch.allclose(each[name].sum(0), expected, atol=1e-3, rtol=1e-3), name
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    along = torch.func.jvp(network, (X,), (torch.ones_like(X),))[1].sum()
    assert torch.allclose(along, slope.sum(), rtol=1e-2, atol=1e-3)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(slope.pow(2).sum(), x)
