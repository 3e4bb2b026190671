"""The encoder of windows against its equation, and what stands outside a sequence."""

import pytest
import torch

from models.spike.export import StepGraph
from models.spike.heads import ConvEncoder, encode
from models.spike.network import Network, load, save
from sdn.errors import UserError


def _naive(encoder, row):
    """One sequence of ids or samples, window by window."""
    e = row if encoder.embed is None else encoder.embed(row)
    out = []
    for t in range(-(-len(e) // encoder.stride)):
        group = []
        for i in range(t * encoder.stride, (t + 1) * encoder.stride):
            w = encoder.conv.bias.clone()
            for k in range(encoder.kernel):
                at = i - encoder.kernel + 1 + k
                if 0 <= at < len(e):
                    w = w + encoder.conv.weight[:, :, k] @ e[at]
            group.append(encoder.activation(w))
        out.append(torch.stack(group).mean(0) if encoder.pool else group[-1])
    return torch.stack(out)


@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (3, 3), (5, 2), (1, 1), (4, 3)])
@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("pool", [True, False])
def test_windows_are_those_of_each_sequence_alone(kernel, stride, tokens, pool):
    torch.manual_seed(0)
    reads = {"n_tokens": 7, "d_embed": 3} if tokens else {"d_input": 2}
    encoder = ConvEncoder(5, **reads, kernel=kernel, stride=stride, pool=pool, activation="relu").double()
    lengths = torch.tensor([17, 1, 6, 12])
    x = torch.randint(7, (4, 17)) if tokens else torch.randn(4, 17, 2).double()
    if not tokens:
        x[1, 1:] = float("nan")  # whatever stands in the padding does not matter
    h, after = encode(encoder, x, lengths)
    for row, n, m, found in zip(x, lengths, after, h, strict=True):
        torch.testing.assert_close(found[:m], _naive(encoder, row[:n]), rtol=0, atol=1e-12)
    assert h.shape == (4, -(-17 // stride), 5)


@pytest.mark.parametrize("pool", [True, False])
def test_gradients_are_those_of_the_naive_form(pool):
    torch.manual_seed(0)
    encoder = ConvEncoder(4, n_tokens=6, d_embed=3, kernel=5, stride=3, pool=pool, activation="gelu").double()
    x, weights = torch.randint(6, (2, 11)), torch.randn(2, 4, 4).double()
    fast = torch.autograd.grad((encoder(x) * weights).sum(), encoder.parameters())
    slow = sum((_naive(encoder, row) * w).sum() for row, w in zip(x, weights, strict=True))
    for a, b in zip(fast, torch.autograd.grad(slow, encoder.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_activation_follows_the_windows(name):
    encoder = ConvEncoder(4, d_input=2, activation=name)
    x = torch.randn(2, 9, 2)
    found, encoder.activation = encoder(x), lambda h: h
    torch.testing.assert_close(found, getattr(torch.nn.functional, name)(encoder(x)))


def test_dropout_silences_whole_samples_in_training_only():
    torch.manual_seed(0)
    encoder = ConvEncoder(4, d_input=2, kernel=1, stride=1, dropout=0.5)
    x = torch.ones(1, 400, 2)
    silent = (encoder(x)[0] - encoder.conv.bias).abs().sum(-1) < 1e-6
    assert 120 < silent.sum() < 280
    assert torch.equal(encoder.eval()(x)[0], encoder.conv(x.transpose(1, 2)).transpose(1, 2)[0])


def test_jitter_moves_the_windows_in_training_and_loses_no_sample():
    torch.manual_seed(0)
    encoder = ConvEncoder(4, d_input=2, kernel=5, stride=3, jitter=True).double()
    x = torch.randn(1, 10, 2).double()
    shifted = [_naive(encoder, torch.cat([x[0, late:], x.new_zeros(late, 2)])) for late in range(3)]
    seen = set()
    for _ in range(30):
        h = encoder(x)[0]
        late = next(i for i, other in enumerate(shifted) if torch.allclose(h[1:], other[1:], rtol=0, atol=1e-12))
        seen.add(late)
        assert torch.autograd.grad(encoder(x.requires_grad_()).sum(), x)[0].ne(0).all()
    assert seen == {0, 1, 2}
    torch.testing.assert_close(encoder.eval()(x)[0], shifted[0], rtol=0, atol=1e-12)


def test_a_network_of_windows_is_saved_and_ignores_padding_and_exports_no_step(tmp_path):
    torch.manual_seed(0)
    layer = {"neuron": "sltt", "d_state": 8, "bidirectional": True}
    model = {"d_model": 8, "n_layers": 1, "prenorm": True, "norm": "batch", "mask_padding": True, "layer": layer}
    encoder = {"kind": "conv", "n_tokens": 9, "d_embed": 4, "kernel": 6, "stride": 4}
    decoder = {"kind": "sequence", "d_output": 2, "use_lengths": True}
    network = Network({"model": model, "encoder": encoder, "decoder": decoder}).eval()
    save(network, tmp_path / "net.safetensors")
    x, lengths = torch.randint(9, (3, 40)), torch.tensor([40, 7, 22])
    logits = load(tmp_path / "net.safetensors")(x, lengths)
    for row, n, found in zip(x, lengths, logits, strict=True):
        alone = network(row[None, :n], n[None])[0]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="bidirectional"):
        network.initial_state()
    with pytest.raises(UserError, match="windows"):
        StepGraph(network)


@pytest.mark.parametrize(("kernel", "stride", "pool"), [(4, 4, False), (7, 4, True), (2, 3, True), (5, 1, False)])
@pytest.mark.parametrize("tokens", [True, False])
def test_a_stream_of_windows_answers_as_the_parallel_run_after_every_stride(kernel, stride, pool, tokens):
    torch.manual_seed(kernel)
    layer = {"neuron": "sltt", "d_state": 8}
    model = {"d_model": 8, "n_layers": 2, "prenorm": True, "norm": "batch", "layer": layer}
    reads = {"n_tokens": 9, "d_embed": 4} if tokens else {"d_input": 2}
    encoder = {"kind": "conv", "kernel": kernel, "stride": stride, "pool": pool, "activation": "gelu", **reads}
    decoder = {"kind": "sequence", "d_output": 3}
    network = Network({"model": model, "encoder": encoder, "decoder": decoder}).eval().double()
    x = torch.randint(9, (2, 25)) if tokens else torch.randn(2, 25, 2, dtype=torch.float64)
    state, before = network.initial_state(2), torch.zeros(2, 3, dtype=torch.float64)
    for t in range(1, 26):
        answer, state = network.step(x[:, t - 1], state)
        if t % stride == 0:
            before = network(x[:, :t])
        torch.testing.assert_close(answer, before, rtol=0, atol=1e-10)
    if not tokens:
        with pytest.raises(UserError, match="NaN"):
            network.step(x[:, 0] * float("nan"), state)
    with pytest.raises(UserError, match="streams"):
        network.step(x[:1, 0], state)


WRONG = [{"stride": 9}, {"stride": 0}, {"d_embed": 0}, {"dropout": 1.0}, {"d_input": 2}, {"activation": "sine"}]


@pytest.mark.parametrize("wrong", [*WRONG, {"jitter": True, "kernel": 6}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(UserError):
        ConvEncoder(4, n_tokens=5, **wrong)
