"""The compiled steps of the fit against plain PyTorch: losses, gradients, optimizer steps, figures; and its threads."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import smooth_l1_loss

from sdn.errors import UserError
from sdn.fitting.data import NeuronData
from sdn.fitting.fit import Fit, FitConfig
from sdn.fitting.laws import make_law
from sdn.fitting.simulate import scan
from sdn.kernels.threads import beside

fused = pytest.importorskip("sdn.fitting.fused")
from sdn.fitting import team  # noqa: E402

# Before a batch norm a bias has no gradient: PyTorch leaves noise there, which AdamW blows up to steps of full length.
WITHOUT_GRADIENT = ("layers.0.depthwise.bias", "layers.0.pointwise.bias")
# The encoder only scales what a batch norm scales back: its gradient is far below that of the others.
FAINT = "encoder.weight"


def draw(rows, steps, tau=0.2, law="white"):
    current = make_law(law).draw(np.random.default_rng(0), rows, steps)
    return NeuronData(*map(torch.from_numpy, (current, *scan(current, tau))), {"tau": tau}, Path("drawn"))


def pair(data, d=8, k=8, **options):
    """Two fits from one start: the compiled one, and one that takes plain steps."""
    one, two = (Fit(FitConfig(d_model=d, kernel_size=k, batch_size=4, **options), data) for _ in range(2))
    assert one._fused
    two._fused = None
    return one, two


@pytest.mark.parametrize(
    ("rows", "steps", "d", "k", "law"),
    [
        (12, 1024, 8, 8, "white"),
        (20, 300, 5, 3, "mixture"),
        (9, 37, 8, 7, "ar1"),
        (6, 5, 3, 8, "white"),
        (40, 2, 8, 1, "white"),
        (9, 129, 12, 16, "constant"),
        (2, 5000, 1, 1, "white"),
    ],
)
def test_losses_gradients_and_running_statistics(rows, steps, d, k, law):
    one, two = pair(draw(rows, steps, law=law), d, k)
    with torch.no_grad():
        for own, other in zip(one.sdn.parameters(), two.sdn.parameters(), strict=True):
            other.copy_(own.add_(0.3 * torch.randn(own.shape, generator=torch.Generator().manual_seed(own.numel()))))
    index = one.training[:3]
    one.sdn.train()
    two.sdn.train()
    loss = smooth_l1_loss(two.sdn(two.input[index]), two.mem[index])
    loss.backward()
    assert one.steps([index], [0.0]) == pytest.approx([loss.item()], rel=1e-5)
    largest = max(p.grad.abs().max() for p in two.sdn.parameters())
    for (name, own), other in zip(one.sdn.named_parameters(), two.sdn.parameters(), strict=True):
        gradient = one.optimizer.state[own]["exp_avg"] / 0.1
        if name in WITHOUT_GRADIENT:
            assert not gradient.any()
            assert other.grad.abs().max() < 1e-4 * largest
        else:
            torch.testing.assert_close(gradient, other.grad, rtol=1e-3, atol=2e-6 * float(largest) + 1e-7)
        assert torch.equal(own, other)  # at a rate of 0
    for own, other in zip(one.sdn.buffers(), two.sdn.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_steps_are_those_of_adamw():
    one, two = pair(draw(40, 128), weight_decay=0.1)
    batches, rates = one.training.split(4), torch.linspace(0.02, 0.01, 9).tolist()
    one.sdn.train()
    two.sdn.train()
    one.steps(batches[:9], rates)
    two.steps(batches[:9], rates)
    for (name, own), other in zip(one.sdn.named_parameters(), two.sdn.parameters(), strict=True):
        assert one.optimizer.state[own]["step"] == two.optimizer.state[other]["step"] == 9
        if name not in (*WITHOUT_GRADIENT, FAINT):
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)
    assert one.sdn.layers[0].depthwise_norm.num_batches_tracked == 9


@pytest.mark.parametrize(("rows", "steps", "d"), [(30, 300, 8), (20, 31, 5), (11, 6000, 3)])
def test_figures_of_the_evaluation(rows, steps, d):
    fit, _ = pair(draw(rows, steps), d)
    fit.run_epoch()
    (loss, score), (plain_loss, plain) = fit.validate(), fit.judge()
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert (score.steps, score.true_spikes) == (plain.steps, plain.true_spikes)
    assert score.wrong_spikes == pytest.approx(plain.wrong_spikes, abs=1)
    for name in ("mae_mean", "mae_std", "mae_max"):
        assert getattr(score, name) == pytest.approx(getattr(plain, name), rel=1e-4)


def test_a_fit_on_the_compiled_way_ends_where_the_plain_one_does():
    one, two = pair(draw(200, 64), epochs=8)
    for _ in range(8):
        mine, plain = one.run_epoch(), two.run_epoch()
    assert mine["train_loss"] == pytest.approx(plain["train_loss"], rel=0.05)
    assert mine["val_loss"] == pytest.approx(plain["val_loss"], rel=0.1)


def state(fit):
    slots = [value for slot in fit.optimizer.state.values() for value in slot.values()]
    return [*fit.sdn.state_dict().values(), *slots]


def test_bits_depend_on_neither_threads_nor_groups(monkeypatch):
    data, threads, ends = draw(60, 1500), torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            fit = Fit(FitConfig(batch_size=16, epochs=3), data)
            monkeypatch.setattr("sdn.fitting.fit._GROUP", 16 * 1500 * count)
            rows = [fit.run_epoch() for _ in range(3)]
            ends.append((state(fit), [{k: v for k, v in row.items() if k != "seconds"} for row in rows]))
    finally:
        torch.set_num_threads(threads)
    for values, rows in ends[1:]:
        assert all(map(torch.equal, values, ends[0][0]))
        assert rows == ends[0][1]


def test_the_leader_does_the_work_of_a_helper_that_does_not_come_back(monkeypatch):
    """A helper that claims a piece of every pass and never computes it."""
    data, threads = draw(30, 1500), torch.get_num_threads()

    def idle(me, rows, current, mem, spike, T, d, k, state, claims, *_):
        while not state[team.STOP]:
            claims[-1] = max(claims[-1], state[team.PASS])
        return True

    alone, hindered = (Fit(FitConfig(batch_size=16), data) for _ in range(2))
    try:
        torch.set_num_threads(1)
        alone.run_epoch()
        monkeypatch.setattr(fused, "help_out", idle)
        torch.set_num_threads(2)
        hindered.run_epoch()
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, state(alone), state(hindered)))


@pytest.mark.parametrize("where", ["encoder.weight", "layers.0.pointwise.weight", "decoder.bias"])
def test_nan_stops_the_fit_with_a_sentence(where):
    fit = Fit(FitConfig(batch_size=4), draw(30, 32))
    with torch.no_grad():
        dict(fit.sdn.named_parameters())[where].view(-1)[0] = torch.nan
    with pytest.raises(UserError, match="the loss became nan in epoch 1, step 1"):
        fit.run_epoch()


def test_what_takes_the_plain_way():
    data = draw(30, 32)
    assert Fit(FitConfig(n_layers=2), data)._fused is None
    double = copy.copy(data)
    object.__setattr__(double, "input", data.input.double())
    assert not fused.fits(Fit(FitConfig(), data).sdn, double.input, data.mem)


def test_an_error_of_the_work_beside_helpers_comes_out():
    done = []
    with pytest.raises(KeyboardInterrupt):
        beside(lambda: (_ for _ in ()).throw(KeyboardInterrupt), [lambda: done.append(1)])
    assert beside(lambda: 3, []) == 3
