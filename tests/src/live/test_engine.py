"""The page's engine, in JavaScript, is the network: every kind of it, step by step."""

import numpy as np
import pytest
import torch

from src.evaluation.energy import Shape, count, total
from src.live.network import description

CASES = {
    "pre batch pool": dict(prenorm=True, norm="batch"),
    "post layer last": dict(prenorm=False, norm="layer", decoder={"kind": "sequence", "d_output": 3, "mode": "last"}),
    "post batch per step": dict(prenorm=False, norm="batch", decoder={"kind": "per_step", "d_output": 3}),
    "pre layer, B learnt, soft": dict(
        prenorm=True, norm="layer", layer={"neuron": "bptt", "reset": "soft", "trainable_B": True}
    ),
    "legacy, embedding, shared threshold": dict(
        prenorm=False,
        postnorm="legacy",
        encoder={"kind": "embedding", "n_tokens": 7},
        layer={"shared_vth": True, "u_r": -0.4},
    ),
    "no norm, learnt tau and reset": dict(
        norm="none",
        layer={"neuron": "bptt", "learnable_tau": True, "learnable_u_r": True, "u_r": 0.2, "learnable_vth": False},
    ),
    "sdn": dict(prenorm=True, norm="batch", layer={"neuron": "sdn"}),
}

RUN = """
const real = { float32: Float32Array, float64: Float64Array }[precision];
const engine = new Engine(net.model, tensors(net.shapes, net.weights, real), real);
const out = [];
for (const x of inputs) out.push({ logits: Array.from(engine.step(x)), counts: Array.from(engine.counts) });
return out;
"""


@pytest.mark.parametrize("name", CASES)
def test_engine_equals_the_network_step_by_step(name, make_network, javascript):
    network = make_network(**CASES[name])
    for layer in network.backbone.layers:  # learnt values that differ from channel to channel
        for parameter in layer.neuron.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    network = network.double()
    ids = network.spec["encoder"]["kind"] == "embedding"
    x = torch.randint(0, 7, (60, 1)) if ids else 3 * torch.randn(60, 1, 2, dtype=torch.float64)
    state, expected = network.initial_state(1), []
    for x_t in x:
        logits, state = network.step(x_t, state)
        expected.append(logits[0].numpy())
    inputs = x[:, 0].tolist()
    found = javascript(RUN, net=description(network, np.float64), inputs=inputs, precision="float64")
    np.testing.assert_allclose([step["logits"] for step in found], expected, rtol=0, atol=1e-9)
    assert 0 < sum(sum(step["counts"]) for step in found) < 60 * 20
    rounded = javascript(RUN, net=description(network.float()), inputs=inputs, precision="float32")
    np.testing.assert_allclose([step["logits"] for step in rounded[:8]], expected[:8], rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("kind", ["sequence", "per_step"])
def test_operations_are_those_of_the_energy_count(norm, kind, make_network, javascript):
    network = make_network(norm=norm, decoder={"kind": kind, "d_output": 3})
    net = description(network)
    found = javascript("return operations(net.model);", net=net)
    rates = [0.2, 0.5]
    shape = Shape(
        10, 8, 1, rates, norm=norm, encoder_weights=20, decoder_weights=30, classes=3,
        decode_every_step=True, trainable_B=False,
    )  # fmt: skip
    pooling = 10 if kind == "sequence" else 0
    for spiking, ours in ((True, found["rest"] + found["column"] * sum(rates) * 10), (False, found["dense"])):
        theirs = total(count(shape, spiking=spiking))
        assert ours == theirs.mac + theirs.ac + pooling


def test_a_run_keeps_spikes_potentials_and_answers(make_network, javascript):
    network = make_network()
    x = (3 * torch.randn(30, 2)).flatten().tolist()
    code = """
      const engine = new Engine(net.model, tensors(net.shapes, net.weights));
      const run = new Run(engine);
      run.start(sequence(net.model, Float32Array.from(x), {}));
      const seen = [];
      while (!run.done) {
        run.step();
        const fired = Array.from(engine.fired[1].subarray(0, engine.counts[1]));
        seen.push([engine.before[13], fired, Array.from(engine.logits)]);
      }
      run.watch(1, 3);
      const all = Array.from({ length: 10 }, (_, h) => h);
      const again = seen.map((_, t) => [run.potential(t), all.filter((h) => run.fired(1, h, t))]);
      const [answers, p] = [Array.from(run.answers), Array.from(run.probabilities)];
      return { seen, again, answers, p, counters: run.counters() };
    """
    found = javascript(code, net=description(network), x=x)
    for (before, fired, logits), (kept, row), answer in zip(
        found["seen"], found["again"], found["answers"], strict=True
    ):
        assert (before, fired) == (kept, row)
        assert answer == np.argmax(logits)
    np.testing.assert_allclose(np.reshape(found["p"], (30, 3)).sum(1), 1, atol=1e-6)
    counters = found["counters"]
    assert counters["mix"] == 20 * counters["spikes"]
    assert counters["mixDense"] == 30 * 2 * 200
    assert counters["rate"] == pytest.approx(counters["spikes"] / 600)
