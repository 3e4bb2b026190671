"""Parallel = step: the same spikes sample by sample, in chunks and at once, and the life of a state."""

import io
import itertools

import pytest
import torch

from models.spike.ss4d import SS4D
from models.spike.ssm import SpikingSSM
from models.spike.state import concat_rows, reset_rows, select_rows
from sdn.errors import UserError

NEURONS = [
    {"neuron": "sltt"},
    {"neuron": "bptt", "reset": "soft"},
    {"neuron": "bptt", "u_r": -0.2, "tau": 0.6, "learnable_tau": True, "learnable_u_r": True},
]


def _model(D=8, n_layers=2, dtype=torch.float64, **options):
    torch.manual_seed(0)
    layer = {"neuron": "sltt", "d_state": 8, **options.pop("layer", {})}
    model = SpikingSSM(D, n_layers, layer=layer, **options).to(dtype)
    for layer in model.layers:
        layer.ln_vth.data.normal_(std=0.3)
    model(torch.randn(4, 60, D, dtype=dtype))  # batch norm has statistics that are not trivial
    return model.eval()


def _stream(model, x, state=None, constants=None):
    state = model.initial_state(x.shape[0]) if state is None else state
    outputs = []
    for x_t in x.unbind(1):
        y_t, state = model.step(x_t, state, constants)
        outputs.append(y_t)
    return torch.stack(outputs, 1), state


def _assert_same_state(got, want):
    for (modes, membrane), (want_modes, want_membrane) in zip(got, want, strict=True):
        torch.testing.assert_close(modes, want_modes)
        torch.testing.assert_close(membrane, want_membrane)


@pytest.mark.parametrize("trainable_B", [False, True])
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_layer_in_parallel_equals_its_steps(trainable_B, neuron):
    torch.manual_seed(0)
    options = {"_name_" if key == "neuron" else key: value for key, value in neuron.items()}
    layer = SS4D(16, 8, trainable_B=trainable_B, neuron=options).double().eval()
    layer.ln_vth.data.normal_(std=0.3)
    u, spikes = torch.randn(2, 16, 300, dtype=torch.float64), []
    layer.neuron.register_forward_hook(lambda module, args, s: spikes.append(s))
    z, _ = layer(u)
    state, fired, outputs = layer.initial_state(2), [], []
    exact_step = layer.neuron.step
    layer.neuron.step = lambda *args: fired.append(exact_step(*args)) or fired[-1]
    for u_t in u.unbind(-1):
        z_t, state = layer.step(u_t, state)
        outputs.append(z_t)
    assert 0.05 < spikes[0].mean() < 0.95
    assert torch.equal(torch.stack([s for s, _ in fired], -1), spikes[0])
    torch.testing.assert_close(torch.stack(outputs, -1), z)


@pytest.mark.parametrize("trainable_B", [False, True])
@pytest.mark.parametrize(
    ("prenorm", "norm", "postnorm"),
    [
        (True, "batch", "fixed"),
        (True, "layer", "fixed"),
        (False, "batch", "fixed"),
        (False, "layer", "fixed"),
        (False, "layer", "legacy"),
    ],
)
def test_model_in_parallel_in_steps_and_in_chunks(trainable_B, prenorm, norm, postnorm):
    model = _model(prenorm=prenorm, norm=norm, postnorm=postnorm, layer={"trainable_B": trainable_B})
    x = torch.randn(3, 200, 8, dtype=torch.float64)
    whole, none = model(x)
    assert none is None
    steps, last = _stream(model, x)
    torch.testing.assert_close(steps, whole)
    state, parts = model.initial_state(3), []
    for part in x.split([1, 63, 64, 72], dim=1):
        y, state = model(part, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    _assert_same_state(state, last)


def test_prefix_in_parallel_then_steps():
    model = _model()
    x = torch.randn(2, 150, 8, dtype=torch.float64)
    head, state = model(x[:, :100], model.initial_state(2))
    tail, _ = _stream(model, x[:, 100:], state, model.recurrence())
    torch.testing.assert_close(torch.cat((head, tail), 1), model(x)[0])


def test_float32_steps_differ_by_rounding_only():
    model = _model(D=16, dtype=torch.float32)
    x = torch.randn(2, 1000, 16)
    whole, (steps, _) = model(x)[0], _stream(model, x, constants=model.recurrence())
    wrong = (whole - steps).abs().amax(-1) > 1e-3  # a spike on the threshold may fall either way
    assert wrong.float().mean() < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_sixteen_thousand_steps(dtype):
    model = _model(D=16, dtype=dtype, layer={"d_state": 16})
    x = torch.randn(1, 16384, 16, dtype=dtype)
    whole, (steps, _) = model(x)[0], _stream(model, x, constants=model.recurrence())
    wrong = ((whole - steps).abs().amax(-1) > 1e-3).float().mean()
    assert wrong == 0 if dtype == torch.float64 else wrong < 0.005


@pytest.mark.slow
def test_a_million_steps_in_chunks_take_constant_memory():
    import resource

    model = _model(D=16, dtype=torch.float32)
    generator, state, peaks = torch.Generator().manual_seed(0), model.initial_state(1), []
    for _ in range(64):
        y, state = model(torch.randn(1, 16384, 16, generator=generator), state)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert y.isfinite().all()
    assert peaks[-1] <= 1.05 * peaks[3]


def test_an_sdn_streams_by_the_exact_recurrence(random_sdn):
    model, exact = _model(), _model()
    for layer in model.layers:
        layer.neuron = random_sdn().double()
    x = torch.randn(2, 80, 8, dtype=torch.float64)
    torch.testing.assert_close(_stream(model, x)[0], exact(x)[0])
    torch.testing.assert_close(model(x, model.initial_state(2))[0], exact(x)[0])


def test_states_save_select_concat_and_reset(tmp_path):
    model = _model()
    x = torch.randn(3, 40, 8, dtype=torch.float64)
    _, state = model(x, model.initial_state(3))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    _assert_same_state(torch.load(file, weights_only=True), state)

    more = torch.randn(3, 10, 8, dtype=torch.float64)
    want, _ = model(more, state)
    rows = [model(more[i : i + 1], select_rows(state, [i]))[0] for i in range(3)]
    torch.testing.assert_close(torch.cat(rows), want)
    _assert_same_state(concat_rows([select_rows(state, [0, 1]), select_rows(state, torch.tensor([2]))]), state)

    fresh = reset_rows(state, torch.tensor([False, True, False]))
    got, _ = model(more, fresh)
    torch.testing.assert_close(got[[0, 2]], want[[0, 2]])
    torch.testing.assert_close(got[1:2], model(more[1:2])[0])
    assert state[0][0][1].abs().max() > 0, "the given state is left alone"


def test_initial_state_has_the_shapes_it_says():
    model = _model(dtype=torch.float32)
    modes, membrane = model.initial_state(5)[1]
    assert modes.shape == (5, 8, 4)
    assert modes.dtype == torch.complex64
    assert membrane.shape == (5, 8)
    assert membrane.dtype == torch.float32
    assert model.initial_state(1, dtype=torch.float64)[0][0].dtype == torch.complex128


def test_what_cannot_stream_says_why():
    two_way = SpikingSSM(4, 1, layer={"neuron": "sltt", "bidirectional": True}).eval()
    for call in (lambda: two_way.initial_state(1), two_way.recurrence):
        with pytest.raises(UserError, match=r"bidirectional.*still to come"):
            call()
    model = SpikingSSM(4, 1, mask_padding=True, layer={"neuron": "sltt"})
    x, state = torch.randn(2, 3, 4), model.initial_state(2)
    for call in (lambda: model.step(x[:, 0], state), lambda: model(x, state)):
        with pytest.raises(UserError, match=r"eval\(\)"):
            call()
    with pytest.raises(UserError, match="lengths"):
        model.eval()(x, state, lengths=torch.tensor([3, 2]))


def test_streaming_makes_no_graph():
    model = _model()
    x = torch.randn(1, 5, 8, dtype=torch.float64, requires_grad=True)
    _, state = model(x, model.initial_state(1))
    tensors = itertools.chain(*state, _stream(model, x)[1][0])
    assert not any(t.requires_grad for t in tensors)
