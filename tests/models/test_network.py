"""A whole network as one file, as a stream, and in other runtimes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.spike.export import STATE, StepGraph, assert_same, example, export_onnx, export_parallel
from models.spike.network import FORMAT, Network, load, save
from sdn.errors import UserError

LAYER = {"neuron": "sltt", "d_state": 16}
SPEC = {
    "model": {"d_model": 16, "n_layers": 2, "prenorm": True, "norm": "batch", "layer": LAYER},
    "encoder": {"kind": "linear", "d_input": 1},
    "decoder": {"kind": "sequence", "d_output": 10},
    "facts": {"accuracy": 0.5},
}


def _network(**changes):
    torch.manual_seed(0)
    network = Network(SPEC | changes)
    network.train()
    network.backbone(torch.randn(4, 40, 16))
    return network.eval()


@pytest.mark.parametrize("mode", ["pool", "last"])
def test_logits_of_a_stream_are_those_of_the_prefix(mode):
    network = _network(decoder={"kind": "sequence", "d_output": 3, "mode": mode}).double()
    x = torch.rand(2, 30, 1, dtype=torch.float64)
    state = network.initial_state(2)
    for t in range(30):
        logits, state = network.step(x[:, t], state)
        if t in (0, 13, 29):
            torch.testing.assert_close(logits, network(x[:, : t + 1]), rtol=0, atol=1e-10)


def test_embedding_networks_stream_token_ids():
    network = _network(encoder={"kind": "embedding", "n_tokens": 7}).double()
    x = torch.randint(7, (2, 12))
    state = network.initial_state(2)
    for t in range(12):
        logits, state = network.step(x[:, t], state)
    torch.testing.assert_close(logits, network(x), rtol=0, atol=1e-10)


def test_language_model_streams_log_probabilities():
    spec = SPEC | {
        "encoder": {"kind": "adaptive", "n_tokens": 20, "cutoffs": [5, 10], "div_val": 2},
        "decoder": {"kind": "adaptive"},
    }
    torch.manual_seed(0)
    network = Network(spec).double().eval()
    x = torch.randint(20, (1, 9))
    parallel = network(x)
    torch.testing.assert_close(parallel.exp().sum(-1), torch.ones(1, 9).double())
    state = network.initial_state(1)
    for t in range(9):
        logits, state = network.step(x[:, t], state)
        torch.testing.assert_close(logits, parallel[:, t], rtol=0, atol=1e-10)


def test_file_round_trip(tmp_path):
    network = _network()
    save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    x = torch.rand(2, 20, 1)
    assert torch.equal(network(x), again(x))
    assert again.facts == {"accuracy": 0.5}


def test_file_of_an_sdn_network_carries_the_sdn(tmp_path, random_sdn):
    network = _network()
    for layer in network.backbone.layers:
        layer.neuron = random_sdn()
    network.spec["model"]["layer"] = LAYER | {"neuron": "sdn", "sdn": "somewhere/else.safetensors"}
    save(network, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    x = torch.rand(2, 20, 1)
    assert torch.equal(network(x), again(x))
    assert type(again.backbone.layers[0].neuron).__name__ == "SDNNeuron"


def test_loads_where_hydra_and_lightning_cannot_be_imported(tmp_path):
    save(_network(), tmp_path / "net.safetensors")
    code = (
        "import sys\n"
        "for name in ('hydra', 'omegaconf', 'pytorch_lightning', 'src'): sys.modules[name] = None\n"
        "import torch; from models.spike import load\n"
        f"print(load({str(tmp_path / 'net.safetensors')!r})(torch.zeros(1, 8, 1)).shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "[1, 10]" in run.stdout


@pytest.mark.parametrize("damage", ["missing", "foreign", "truncated", "other weights"])
def test_broken_files_are_refused_in_a_sentence(tmp_path, damage):
    path = tmp_path / "net.safetensors"
    if damage != "missing":
        save(_network(), path)
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "other weights":
        network = _network()
        network.spec["model"]["n_layers"] = 1
        save(network, path)
    with pytest.raises(UserError) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_unknown_parts_and_streams_that_cannot_be():
    with pytest.raises(UserError, match="unknown encoder"):
        Network(SPEC | {"encoder": {"kind": "wavelet"}})
    with pytest.raises(UserError, match="does not fit"):
        Network(SPEC | {"decoder": {"kind": "sequence", "d_output": 2, "typo": 1}})
    with pytest.raises(UserError, match="retrieval"):
        _network(decoder={"kind": "retrieval", "d_output": 2}).initial_state()
    with pytest.raises(UserError, match="bidirectional"):
        StepGraph(Network(SPEC | {"model": SPEC["model"] | {"layer": LAYER | {"bidirectional": True}}}).eval())


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_step_graph_is_the_network_in_real_numbers(norm, prenorm):
    layer = LAYER | {"neuron": "bptt", "reset": "soft", "trainable_B": True}
    model = SPEC["model"] | {"norm": norm, "prenorm": prenorm, "layer": layer}
    network = _network(model=model).double()
    graph = StepGraph(network)
    x = torch.rand(2, 60, 1, dtype=torch.float64)
    state, outputs = graph.initial_state(2), []
    for x_t in x.unbind(1):
        logits, *state = graph(x_t, *state)
        outputs.append(logits)
    assert_same(network, x.unbind(1), outputs, atol=1e-10)
    with pytest.raises(UserError, match="sample 0"):
        assert_same(network, x.unbind(1), [o + 1 for o in outputs])


def test_parallel_form_through_torch_export():
    network = _network()
    program = export_parallel(network, 32)
    x = torch.rand(1, 32, 1)
    torch.testing.assert_close(program.module()(x), network(x).detach())


def test_onnx_runtime_streams_a_thousand_steps(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = _network()
    export_onnx(network, tmp_path / "step.onnx")
    session = runtime.InferenceSession(str(tmp_path / "step.onnx"))
    graph = StepGraph(network)
    x = torch.rand(1000, 1, 1)
    ours = graph.initial_state()
    theirs = [v.numpy() for v in ours]
    differing = 0
    for x_t in x:
        logits, *theirs = session.run(None, {"x": x_t.numpy(), **dict(zip(STATE, theirs, strict=True))})
        expected, *ours = graph(x_t, *ours)
        differing += not np.allclose(logits, expected.numpy(), rtol=0, atol=1e-4)
    assert differing == 0
    assert example(network).shape == (1, 1)


def test_nir_of_affine_and_neuron_simulates_to_the_same_spikes():
    nir = pytest.importorskip("nir")
    from models.spike.nir_export import to_nir
    from sdn.lif import lif_reference
    from sdn.neurons import LIF

    torch.manual_seed(0)
    affine = torch.nn.Linear(3, 5)
    graph = to_nir([affine, LIF(0.25, "sltt", u_r=-0.1)], dt=1e-3, v_th=0.7)
    lif = next(node for node in graph.nodes.values() if isinstance(node, nir.LIF))
    x = torch.randn(200, 3)
    current = affine(x).detach().double().numpy()
    v, spikes = np.zeros(5), []
    for i_t in current:
        v = v + 1e-3 / lif.tau * (lif.v_leak - v + lif.r * i_t)
        fired = v >= lif.v_threshold
        v = np.where(fired, lif.v_reset, v)
        spikes.append(fired)
    expected = lif_reference(torch.from_numpy(current).T / 0.7, 0.25, -0.1)[1]
    np.testing.assert_array_equal(np.array(spikes).T, expected.numpy() > 0)


def test_nir_refuses_what_it_cannot_express():
    pytest.importorskip("nir")
    from models.spike.nir_export import to_nir
    from sdn.neurons import LIF

    affine = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="ONNX"):
        to_nir([affine, _network().backbone])
    with pytest.raises(UserError, match="GLU"):
        to_nir([affine, torch.nn.GLU()])
    with pytest.raises(UserError, match="soft"):
        to_nir([affine, LIF(0.2, "bptt", "soft")])
    with pytest.raises(UserError, match="begin"):
        to_nir([LIF(0.2)])


def test_any_changed_bit_of_the_file_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save(_network(), path)
    raw = path.read_bytes()
    for place in range(100, len(raw), len(raw) // 150):
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError):
            load(path)


# -- lengths, rates, long streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lengths",
    [[80, 30], [40, 0], [40, -1], [40], [40, 30, 2], [[40, 30]], [40.0, 30.0], [True, True]],
    ids=str,
)
@pytest.mark.parametrize("where", ["network", "network without use", "backbone", "sequence", "per_step", "retrieval"])
def test_lengths_that_cannot_be_are_refused(where, lengths):
    from models.spike.heads import RetrievalDecoder, SequenceDecoder, StepDecoder

    decoder = {"kind": "sequence", "d_output": 3, "use_lengths": where == "network"}
    network, x, h = _network(decoder=decoder), torch.randn(2, 40, 1), torch.randn(2, 40, 16)
    call = {
        "network": lambda n: network(x, n),
        "network without use": lambda n: network(x, n),
        "backbone": lambda n: network.backbone(h, lengths=n),
        "sequence": lambda n: SequenceDecoder(16, 3, use_lengths=True)(h, n),
        "per_step": lambda n: StepDecoder(16, 3)(h, n),
        "retrieval": lambda n: RetrievalDecoder(16, 3)(h, n),
    }[where]
    call(torch.tensor([40, 1]))
    with pytest.raises(UserError, match="lengths must"):
        call(torch.tensor(lengths))


@pytest.mark.parametrize("mode", ["pool", "last"])
def test_lengths_are_optional(mode):
    network = _network(decoder={"kind": "sequence", "d_output": 3, "mode": mode, "use_lengths": True})
    x = torch.randn(2, 40, 1)
    torch.testing.assert_close(network(x), network(x, torch.tensor([40, 40])))


@pytest.mark.parametrize("decoder", [{"kind": "sequence", "d_output": 3}, {"kind": "per_step", "d_output": 3}])
def test_a_stream_of_another_rate(decoder):
    network = _network(decoder=decoder).double()
    x = torch.rand(1, 25, 1, dtype=torch.float64)
    whole, state, saved = network(x, rate=2.0), network.initial_state(), network.initial_state()
    constants = network.backbone.recurrence(2.0)
    for t in range(25):
        logits, state = network.step(x[:, t], state, rate=2.0)
        again, saved = network.step(x[:, t], saved, constants)
        torch.testing.assert_close(logits, again, rtol=0, atol=1e-12)  # one of them by compiled code
    torch.testing.assert_close(logits, whole[:, -1] if whole.dim() == 3 else whole, rtol=0, atol=1e-10)
    assert not torch.allclose(logits, network(x)[:, -1] if whole.dim() == 3 else network(x))


def test_a_stream_outlives_two_to_the_24_samples():
    """The running mean goes on: a float32 counter stops at 2^24, a float32 sum grows no more."""
    from models.spike.heads import SequenceDecoder, Summary

    before, h = 2**24 - 3, torch.full((1, 16), 3.0)
    decoder, network = SequenceDecoder(16, 2), _network()
    state = Summary(torch.ones(1, 16, dtype=torch.float64) * before, before)
    graph = StepGraph(network)
    memory = list(graph.initial_state())
    memory[3], memory[4] = memory[3] + before, memory[4] + before
    for t in range(1, 9):
        answer, state = decoder.step(h, state)
        mean = 1 + 2 * t / (before + t)
        assert float(state.value[0, 0]) / state.count == pytest.approx(mean, rel=1e-12)
        torch.testing.assert_close(answer, decoder.output(torch.full((1, 16), mean)))
        _, *memory = graph(torch.rand(1, 1), *memory)
        assert int(memory[4]) == before + t
    assert not torch.equal(memory[3], torch.full_like(memory[3], before))


def test_the_exported_step_outlives_two_to_the_24_samples(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = _network()
    export_onnx(network, tmp_path / "step.onnx")
    session, graph = runtime.InferenceSession(str(tmp_path / "step.onnx")), StepGraph(network)
    ours = list(graph.initial_state())
    ours[3], ours[4] = ours[3] + 2**24, ours[4] + 2**24
    theirs = [value.numpy() for value in ours]
    for x_t in torch.rand(20, 1, 1):
        logits, *theirs = session.run(None, {"x": x_t.numpy(), **dict(zip(STATE, theirs, strict=True))})
        expected, *ours = graph(x_t, *ours)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-5)
    assert int(theirs[4].item()) == 2**24 + 20


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"d_model": 10**9}},
        {"model": {"n_layers": 10**9}},
        {"model": {"d_model": "8"}},
        {"model": {"layer": None}},
        {"model": {"new": 1}},
        {"model": {"layer": {"d_state": 10**9, "neuron": "sltt"}}},
        {"encoder": None},
        {"encoder": {"kind": "linear", "d_input": 10**9}},
        {"encoder": {"kind": "linear", "d_input": "1"}},
        {"decoder": {"kind": "sequence", "d_output": -1}},
        {"decoder": []},
    ],
    ids=str,
)
def test_a_header_without_checksum_that_describes_another_network(tmp_path, change):
    """Damaged, of another version or made to ask for too much: one sentence, before anything is allocated."""
    spec = {
        "model": {"d_model": 8, "n_layers": 1, "layer": {"d_state": 4, "neuron": "sltt"}},
        "encoder": {"kind": "linear", "d_input": 1},
        "decoder": {"kind": "sequence", "d_output": 3},
    }
    torch.manual_seed(0)
    whole = Network(spec)
    for part, value in change.items():
        spec[part] = {**spec[part], **value} if part == "model" and value else value
    save_file(whole.state_dict(), tmp_path / "x.safetensors", {"format": FORMAT, "config": json.dumps(spec)})
    with pytest.raises(UserError):
        load(tmp_path / "x.safetensors")
    save_file(whole.state_dict(), tmp_path / "y.safetensors", {"format": FORMAT, "config": "{"})
    with pytest.raises(UserError, match="header"):
        load(tmp_path / "y.safetensors")


def test_engine_and_exported_step_take_a_rate():
    from models.spike import EventEngine

    network = _network().double()
    x = torch.rand(1, 25, 1, dtype=torch.float64)
    with torch.no_grad():
        expected = network.backbone(network.encoder(x), rate=2.0)[0][0]
        found = EventEngine(network.backbone, np.float64, rate=2.0).run(network.encoder(x)[0].numpy())
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-10)
        graph = StepGraph(network, rate=2.0)
        state = graph.initial_state()
        for x_t in x.unbind(1):
            logits, *state = graph(x_t, *state)
        torch.testing.assert_close(logits, network(x, rate=2.0), rtol=0, atol=1e-10)
