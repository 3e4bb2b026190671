"""The layer and the backbone: equations, parameter counts of every experiment, options, padding."""

import pytest
import torch
from torch.nn import functional as F

from models.spike.ss4d import SS4D
from models.spike.ssm import SpikingSSM
from sdn.errors import UserError
from sdn.lif import lif_reference

# name: d_model, n_layers, layer options, and the trainable numbers with (base lr and decay | base lr, no decay |
# kernel lr, no decay | kernel lr, base decay), encoder and decoder apart.
EXPERIMENTS = {
    "cifar": (512, 6, {"bidirectional": True}, (3545088, 12288, 199680, 0)),
    "mnist": (400, 2, {}, (692800, 3200, 52000, 0)),
    "pmnist": (256, 4, {}, (591872, 4096, 66560, 0)),
    "listops": (256, 6, {"d_state": 4, "bidirectional": True, "trainable_B": True}, (789504, 6144, 13824, 12288)),
    "imdb": (256, 6, {"d_state": 4, "bidirectional": True, "trainable_B": True}, (789504, 6144, 13824, 12288)),
    "aan": (256, 6, {"bidirectional": True}, (986112, 6144, 99840, 0)),
    "pathfinder": (256, 6, {"bidirectional": True}, (986112, 6144, 99840, 0)),
    "pathx": (256, 6, {"bidirectional": True, "trainable_B": True}, (789504, 6144, 198144, 196608)),
    "sc": (128, 6, {"d_state": 16, "bidirectional": True, "trainable_B": True}, (198144, 3072, 25344, 24576)),
    "wt103": (1024, 16, {}, (34635776, 65536, 1064960, 0)),
    "dvs": (512, 6, {"d_state": 16, "bidirectional": True, "trainable_B": True}, (3151872, 12288, 101376, 98304)),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_parameter_groups_of_the_experiments(name):
    d_model, n_layers, layer, want = EXPERIMENTS[name]
    with torch.device("meta"):
        model = SpikingSSM(d_model, n_layers, layer={**layer, "neuron": "sltt"})
    counts = [0, 0, 0, 0]
    for parameter_name, parameter in model.named_parameters():
        own = {"weight_decay": 0.0} if "norms." in parameter_name or parameter_name.endswith("bias") else None
        own = getattr(parameter, "_optim", {}) if own is None else own
        group = {(): 0, ("weight_decay",): 1, ("lr", "weight_decay"): 2, ("lr",): 3}[tuple(sorted(own))]
        counts[group] += parameter.numel()
    assert tuple(counts) == want


@pytest.mark.parametrize("trainable_B", [False, True])
def test_the_kernel_has_the_learning_rate_it_is_given(trainable_B):
    layer = SS4D(4, 8, neuron="sltt", lr=0.02, trainable_B=trainable_B)
    rates = {said["lr"] for said in layer.kernel.optim_options().values()}
    assert rates - {None} == {0.02}


def test_an_sdn_adds_no_parameter(random_sdn):
    layer = SS4D(8, neuron="sltt")
    before = sum(p.numel() for p in layer.parameters())
    layer.neuron = random_sdn()
    assert sum(p.numel() for p in layer.parameters()) == before


@pytest.mark.parametrize("trainable_B", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("vth", ["own", "shared", "fixed"])
def test_layer_is_its_equation(trainable_B, bidirectional, vth):
    torch.manual_seed(0)
    options = {"learnable_vth": vth != "fixed", "shared_vth": vth == "shared"}
    layer = SS4D(4, 8, bidirectional, trainable_B=trainable_B, neuron="bptt", **options).double()
    if layer.ln_vth is not None:
        layer.ln_vth.data.normal_(std=0.3)
        assert layer.ln_vth.shape == ((1,) if vth == "shared" else (4,))
    u = torch.randn(2, 4, 12, dtype=torch.float64, requires_grad=True)
    k = layer.kernel(12)
    y = torch.zeros_like(u) + layer.D[:, None] * u
    for t in range(12):
        y[..., t] = y[..., t] + sum(k[0, :, t - s] * u[..., s] for s in range(t + 1))
        if bidirectional:
            y[..., t] = y[..., t] + sum(k[1, :, s - t - 1] * u[..., s] for s in range(t + 1, 12))
    if layer.ln_vth is not None:
        y = y / layer.ln_vth.exp()[:, None]
    s = lif_reference(y, 0.125)[1]
    assert 0 < s.mean() < 1
    want = F.glu(F.conv1d(s, layer.mix.weight, layer.mix.bias), 1)
    got, state = layer(u)
    assert state is None
    torch.testing.assert_close(got, want)
    wrt, weight = (u, *layer.parameters()), torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(got, wrt, weight), torch.autograd.grad(want, wrt, weight), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["batch", "layer"])
@pytest.mark.parametrize(("prenorm", "postnorm"), [(True, "fixed"), (False, "fixed"), (False, "legacy")])
def test_residual_and_norm_order(name, prenorm, postnorm):
    torch.manual_seed(0)
    model = SpikingSSM(6, 2, prenorm=prenorm, norm=name, postnorm=postnorm, layer={"neuron": "sltt", "d_state": 4})
    x = torch.randn(3, 9, 6)
    want = x.transpose(1, 2)
    for layer, norm in zip(model.layers, model.norms, strict=True):
        want = want + layer(norm(want))[0] if prenorm else norm(want + layer(want)[0])
    y, state = model(x)
    assert state is None
    assert y.shape == x.shape
    torch.testing.assert_close(y, want.transpose(1, 2))
    y.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters()), "a dead parameter"
    assert len(list(model.norms.parameters())) == (0 if postnorm == "legacy" else 4)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"norm": "instance"}, "batch, layer, none"),
        ({"norm": "instance", "postnorm": "legacy"}, "batch, layer, none"),
        ({"postnorm": "old"}, "fixed, legacy"),
        ({"layer": None}, "d_state"),
        ({"layer": {"channels": 2}}, "channels.*d_state"),
        ({"layer": {"dstate": 2}}, "dstate"),
        ({"layer": {"neuron": "relu"}}, "sltt"),
        ({"layer": {"neuron": "sltt", "tau": 1.5}}, "tau"),
        ({"layer": {"neuron": "sltt", "reset": "medium"}}, "soft"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_layers": 0}, "n_layers"),
    ],
    ids=str,
)
def test_mistakes_are_refused_in_a_sentence(options, word):
    with pytest.raises(UserError, match=word):
        SpikingSSM(**{"d_model": 4, "layer": {"neuron": "sltt"}, **options})
    with pytest.raises(TypeError):
        SpikingSSM(4, tie_dropout=True)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_masked_padding_changes_nothing(norm, prenorm):
    torch.manual_seed(0)
    layer = {"neuron": "sltt", "d_state": 4, "bidirectional": True}
    model = SpikingSSM(6, 2, prenorm=prenorm, norm=norm, mask_padding=True, layer=layer).double()
    x = torch.randn(4, 11, 6, dtype=torch.float64)
    padded = torch.cat((x, torch.randn(4, 8, 6, dtype=torch.float64)), 1)
    lengths = torch.full((4,), 11)
    for _ in range(2):  # in training and in evaluation
        torch.testing.assert_close(model(padded, lengths=lengths)[0][:, :11], model(x)[0])
        model.eval()
    model.mask_padding = False
    assert not torch.allclose(model(padded, lengths=lengths)[0][:, :11], model(x)[0])


def test_rate_reads_a_slower_recording():
    torch.manual_seed(0)
    model = SpikingSSM(4, 1, norm="none", layer={"neuron": "sltt", "dt_max": 1e-3, "dt_min": 1e-3}).double().eval()
    u = torch.randn(1, 1, 4, dtype=torch.float64).expand(1, 64, 4)
    fine, coarse = (model.layers[0].kernel(length, rate).cumsum(-1) for length, rate in ((64, 1.0), (32, 2.0)))
    torch.testing.assert_close(coarse, fine[..., 1::2], rtol=1e-9, atol=1e-12)  # same step response
    assert model(u[:, ::2], rate=2.0)[0].shape == (1, 32, 4)


def test_bfloat16_autocast_trains():
    torch.manual_seed(0)
    model = SpikingSSM(16, 2, dropout=0.1, norm="batch", layer={"neuron": "sltt", "bidirectional": True})
    x = torch.randn(2, 50, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = model(x)
    assert y.dtype == torch.float32
    y.square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


def test_lengths_of_one_and_empty_extras():
    model = SpikingSSM(4, 1, layer={"neuron": "sltt"}).eval()
    assert model(torch.randn(2, 1, 4), lengths=torch.tensor([1, 1]))[0].shape == (2, 1, 4)
    assert SpikingSSM(4, layer={"neuron": "sltt"}).d_output == 4


@pytest.mark.slow
def test_compiled_model_gives_the_same_results():
    torch.manual_seed(0)
    model = SpikingSSM(16, 2, norm="batch", prenorm=True, layer={"neuron": "sltt", "bidirectional": True})
    x = torch.randn(2, 100, 16)
    want = model(x)[0]
    grads = torch.autograd.grad(want.square().mean(), list(model.parameters()))
    got = torch.compile(model, fullgraph=True)(x)[0]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    for a, b in zip(torch.autograd.grad(got.square().mean(), list(model.parameters())), grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
