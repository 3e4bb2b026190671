"""A whole network streams through compiled code: the answers of PyTorch's step, for many streams at once."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models.spike import EventEngine, Network, StreamEngine, quick_step
from sdn.errors import UserError

MODELS = {
    "pre layer": dict(prenorm=True, norm="layer", layer=dict(neuron="sltt")),
    "post batch, shared threshold": dict(prenorm=False, norm="batch", layer=dict(neuron="sdn", shared_vth=True)),
    "pre batch B soft": dict(prenorm=True, norm="batch", layer=dict(neuron="bptt", reset="soft", trainable_B=True)),
    "no norm, reset value, learnt tau": dict(
        norm="none", layer=dict(neuron="bptt", u_r=-0.3, learnable_vth=False, learnable_tau=True)
    ),
}
HEADS = {
    "pool": ({"kind": "linear", "d_input": 2}, {"kind": "sequence", "d_output": 3, "mode": "pool"}),
    "last": ({"kind": "embedding", "n_tokens": 11}, {"kind": "sequence", "d_output": 3, "mode": "last"}),
    "per step": ({"kind": "linear", "d_input": 1}, {"kind": "per_step", "d_output": 4}),
}


def _network(model="pre layer", heads="pool", H=12, n_layers=2):
    torch.manual_seed(0)
    encoder, decoder = HEADS[heads]
    network = Network(
        {"model": dict(d_model=H, n_layers=n_layers, **MODELS[model]), "encoder": encoder, "decoder": decoder}
    )
    network.train()
    network(_input(network, 4, 40).to(next(network.parameters()).dtype) if heads != "last" else _input(network, 4, 40))
    return network.double().eval()


def _input(network, batch, length):
    if hasattr(network.encoder, "num_embeddings"):
        return torch.randint(0, network.encoder.num_embeddings, (batch, length))
    return torch.randn(batch, length, network.encoder.in_features, dtype=torch.float64) * 2


def _plain(network, x, state, rate=1.0):
    constants, answers = network.backbone.recurrence(rate), []
    for t in range(x.shape[1]):
        answer, state = network.step(x[:, t], state, constants)
        answers.append(answer)
    return torch.stack(answers, 1), state


@pytest.mark.parametrize("rate", [1.0, 2.0])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("model", MODELS)
def test_engine_equals_the_plain_step(model, heads, rate):
    network = _network(model, heads)
    x = _input(network, 3, 60)
    wanted, _ = _plain(network, x, network.initial_state(3), rate)
    engine = StreamEngine(network, 3, rate, np.float64)
    found = np.concatenate([engine.run(x[:, :25]), engine.run(x[:, 25:26]), engine.run(x[:, 26:])], 1)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-9)
    engine.reset()
    np.testing.assert_allclose(engine.run(x, every=False), wanted[:, -1].numpy(), rtol=0, atol=1e-9)
    engine.reset()
    steps = np.stack([engine.step(x[:, t]) for t in range(10)], 1)
    np.testing.assert_allclose(steps, wanted[:, :10].numpy(), rtol=0, atol=1e-9)
    assert (engine.firing_rates >= 0).all()
    assert engine.firing_rates.max() > 0


@pytest.mark.parametrize("heads", HEADS)
def test_states_move_between_engine_network_and_file(heads, tmp_path):
    network = _network(heads=heads)
    x = _input(network, 2, 50)
    wanted, middle = _plain(network, x[:, :20], network.initial_state(2))
    wanted, _ = _plain(network, x[:, 20:], middle)
    engine = StreamEngine(network, 2, dtype=np.float64)
    engine.load_state(middle)
    engine.save(tmp_path / "streams.safetensors")
    np.testing.assert_allclose(engine.run(x[:, 20:]), wanted.numpy(), rtol=0, atol=1e-9)
    engine.load(tmp_path / "streams.safetensors")
    np.testing.assert_allclose(engine.run(x[:, 20:]), wanted.numpy(), rtol=0, atol=1e-9)
    other = StreamEngine(network, 3, dtype=np.float64)
    with pytest.raises(UserError, match="number of streams"):
        other.load(tmp_path / "streams.safetensors")
    (tmp_path / "torn").write_bytes((tmp_path / "streams.safetensors").read_bytes()[:200])
    for path in ("torn", "nowhere"):
        with pytest.raises(UserError):
            engine.load(tmp_path / path)


def test_one_stream_starts_again_and_the_others_go_on():
    network = _network()
    x = _input(network, 3, 40)
    whole, _ = _plain(network, x, network.initial_state(3))
    fresh, _ = _plain(network, x[1:2, 20:], network.initial_state(1))
    engine = StreamEngine(network, 3, dtype=np.float64)
    engine.run(x[:, :20])
    engine.reset([1])
    found = engine.run(x[:, 20:])
    np.testing.assert_allclose(found[[0, 2]], whole[[0, 2], 20:].numpy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[1], fresh[0].numpy(), rtol=0, atol=1e-9)


def test_what_enters_is_checked_and_the_state_is_left_alone():
    network = _network()
    engine = StreamEngine(network, 2, dtype=np.float64)
    engine.run(_input(network, 2, 5))
    before = engine.state()
    bad = _input(network, 2, 4)
    bad[1, 2, 0] = float("nan")
    for x in (bad, bad.nan_to_num(float("inf")) / 0, np.zeros((1, 4, 2)), np.zeros((2, 4, 3)), np.array(["a", "b"])):
        with pytest.raises(UserError):
            engine.run(x)
    with pytest.raises(UserError, match="streams"):
        engine.load_state(network.initial_state(5))
    assert all(torch.equal(before[key], value) for key, value in engine.state().items())
    assert engine.run(np.zeros((2, 0, 2))).shape == (2, 0, 3)
    assert StreamEngine(network, 2).run(torch.zeros(2, 3, 2, dtype=torch.bfloat16)).shape == (2, 3, 3)
    tokens = StreamEngine(_network(heads="last"), 1)
    for ids in ([[11]], [[-1]], [[0.5]]):
        with pytest.raises(UserError):
            tokens.run(np.array(ids))
    for options in ({"batch": 0}, {"dtype": np.float16}):
        with pytest.raises(UserError):
            StreamEngine(network, **options)
    with pytest.raises(UserError, match="eval"):
        StreamEngine(copy.deepcopy(network).train())


@pytest.mark.parametrize("heads", HEADS)
def test_network_step_by_compiled_code_equals_the_plain_one(heads):
    network = _network(heads=heads)
    x = _input(network, 2, 60)
    wanted, last = _plain(network, x, network.initial_state(2))
    state, before = network.initial_state(2), None
    for t in range(60):
        answer, after = network.step(x[:, t], state)
        if before is not None and t == 30:
            assert all(torch.equal(a, b) for a, b in zip(before, state.layers[0], strict=True))  # states are values
        before, state = [part.clone() for part in after.layers[0]], after
        torch.testing.assert_close(answer, wanted[:, t], rtol=0, atol=1e-9)
    assert quick_step._known[network].net is not None
    for (modes, u), (true_modes, true_u) in zip(state.layers, last.layers, strict=True):
        torch.testing.assert_close(modes, true_modes, rtol=0, atol=1e-9)
        torch.testing.assert_close(u, true_u, rtol=0, atol=1e-9)
    assert (state.summary is None) == (last.summary is None)
    if state.summary is not None:
        assert state.summary.count == last.summary.count
        torch.testing.assert_close(state.summary.value, last.summary.value, rtol=0, atol=1e-9)


CHANGES = {
    "in place": lambda network: network.decoder.output.bias.data.zero_(),
    "optimizer": lambda network: torch.optim.SGD([network.encoder.weight], 1.0).step(),
    "a parameter replaced": lambda network: setattr(
        network.backbone.layers[0], "D", torch.nn.Parameter(torch.ones_like(network.backbone.layers[0].D))
    ),
    "weights loaded": lambda network: network.load_state_dict(
        {name: value * 1.5 for name, value in network.state_dict().items()}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_network_step_sees_changed_weights(change):
    network = _network()
    x = _input(network, 1, 30)
    _, state = network.step(x[:, 0], network.initial_state(1))
    for t in range(1, 12):
        _, state = network.step(x[:, t], state)
    assert quick_step._known[network].net is not None
    network.encoder.weight.grad = torch.ones_like(network.encoder.weight)
    CHANGES[change](network)
    wanted, _ = _plain(network, x, network.initial_state(1))
    state = network.initial_state(1)
    for t in range(30):
        answer, state = network.step(x[:, t], state)
        torch.testing.assert_close(answer, wanted[:, t], rtol=0, atol=1e-9)


def test_silence_leaves_no_subnormal_numbers():
    torch.manual_seed(0)
    layer = {"neuron": "sltt", "d_state": 8, "dt_min": 0.05, "dt_max": 0.1}
    model = {"d_model": 8, "n_layers": 2, "norm": "none", "prenorm": True, "layer": layer}
    heads = {"encoder": {"kind": "linear", "d_input": 1}, "decoder": {"kind": "per_step", "d_output": 2}}
    network = Network({"model": model, **heads}).eval()
    with torch.no_grad():
        for bias in (network.encoder.bias, *(layer.mix.bias for layer in network.backbone.layers)):
            bias.zero_()
    x = np.zeros((1, 12000, 1), np.float32)
    x[:, :50] = np.random.default_rng(0).standard_normal((50, 1))
    engine, backbone = StreamEngine(network), EventEngine(network.backbone)
    answers = engine.run(x)
    backbone.run(x[0] @ network.encoder.weight.detach().numpy().T)
    for state in (engine._h, engine._u, *backbone._state):
        assert not ((state != 0) & (np.abs(state) < np.finfo(np.float32).tiny)).any()
    assert np.abs(answers[0, -1] - network.decoder.output.bias.detach().numpy()).max() < 1e-15


def test_network_step_sees_a_state_that_was_changed_by_hand():
    network = _network()
    x, constants = _input(network, 1, 12), network.backbone.recurrence()
    state = network.initial_state(1)
    for change in (lambda m, u: u.add_(0.3), lambda m, u: setattr(u, "data", u + 0.3), lambda m, u: m.mul_(2)):
        for t in range(8):
            _, state = network.step(x[:, t], state)
        change(*state.layers[1])
        for layers in (state.layers, state.layers[::-1]):
            given = state._replace(layers=layers)
            wanted, _ = network.step(x[:, 9], given, constants)
            torch.testing.assert_close(network.step(x[:, 9], given)[0], wanted, rtol=0, atol=1e-9)


def test_hooks_and_foreign_neurons_take_the_plain_way():
    network, calls = _network(), []
    x = _input(network, 1, 20)
    state = network.initial_state(1)
    for t in range(8):
        _, state = network.step(x[:, t], state)
    network.decoder.output.register_forward_hook(lambda *args: calls.append(1))
    for t in range(8, 20):
        _, state = network.step(x[:, t], state)
    assert len(calls) == 12
    spec = copy.deepcopy(network.spec)
    spec["model"]["layer"] = {"neuron": "gelu"}
    graded = Network(spec).eval()
    state = graded.initial_state(1)
    for t in range(12):
        _, state = graded.step(x[:, t].float(), state)
    with pytest.raises(UserError, match="GELU"):
        StreamEngine(graded)


def test_nan_and_foreign_states_are_refused_everywhere():
    network = _network()
    nan, good = torch.full((1, 2), float("nan"), dtype=torch.float64), _input(network, 1, 12)
    state = network.initial_state(1)
    for t in range(12):
        with pytest.raises(UserError, match="NaN"):
            network.step(nan, state)
        with pytest.raises(UserError, match="streams"):
            network.step(good[:, t], network.initial_state(2))
        _, state = network.step(good[:, t], state)
    with pytest.raises(UserError, match="NaN"):
        network.backbone.step(torch.full((1, 12), float("inf")).double(), network.backbone.initial_state(1))
    chunk = torch.randn(1, 9, 12).double()
    chunk[0, 5, 3] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        network.backbone(chunk, state=network.backbone.initial_state(1))
    engine = EventEngine(network.backbone)
    block = np.random.default_rng(0).random((50, 12))
    y = engine.run(block)
    engine.reset()
    block[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        engine.run(block)
    with pytest.raises(UserError, match="NaN"):
        engine.step(block[3])
    np.testing.assert_allclose(engine.run(np.nan_to_num(block))[:3], y[:3])
    assert engine.run(torch.zeros(2, 12, dtype=torch.bfloat16)).shape == (2, 12)
    with pytest.raises(UserError):
        engine.step(np.zeros(5))


@pytest.mark.parametrize(
    "x", [torch.randn(12), torch.randn(1, 9, 11), torch.randn(1, 9, 12, 1), torch.ones(1, 9, 12, dtype=int), [1.0]]
)
def test_a_backbone_says_what_it_reads(x):
    backbone = _network().backbone
    with pytest.raises(UserError, match=r"floats \(B, L, 12\)"):
        backbone(x)
    with pytest.raises(UserError, match=r"floats \(B, 12\)"):
        backbone.step(x, backbone.initial_state(1))


def test_threads_may_stream_through_one_network():
    network = _network()
    inputs = [_input(network, 1, 30) for _ in range(4)]

    def stream(x):
        state = network.initial_state(1)
        for t in range(x.shape[1]):
            logits, state = network.step(x[:, t], state)
        return logits

    wanted = [stream(x) for x in inputs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(stream, inputs * 20))
    finally:
        sys.setswitchinterval(interval)
    for logits, want in zip(found, wanted * 20, strict=True):
        torch.testing.assert_close(logits, want)
