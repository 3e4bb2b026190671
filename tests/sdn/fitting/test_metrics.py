"""Spike metrics: hand-made counts, streaming, and the baselines against the neuron itself."""

import math

import pytest
import torch

from sdn.fitting.metrics import SpikeMetrics, baselines, evaluate, no_memory, truncated
from sdn.lif import lif_reference


def test_figures_by_hand():
    current = torch.tensor([[1.0, 0.5, 0.9, 2.0]])
    mem = torch.tensor([[0.0, 0.0, 0.1, 0.0]])  # spikes 1 0 1 1
    predicted = torch.tensor([[0.0, 0.5, 0.0, -0.5]])  # spikes 1 1 0 1
    metrics = SpikeMetrics()
    metrics.update(predicted, mem, current)
    score = metrics.score()
    assert (score.wrong_spikes, score.true_spikes, score.steps) == (2, 3, 4)
    assert score.spike_accuracy == 0.5
    assert score.ratio == pytest.approx(2 / 3)
    assert score.rate == 0.75
    errors = torch.tensor([0, 0.5, 0.1, 0.5])
    assert score.mae_mean == pytest.approx(errors.mean().item())
    assert score.mae_std == pytest.approx(errors.std(correction=0).item())
    assert score.mae_max == 0.5
    assert score.as_dict()["ratio"] == score.ratio


def test_batches_add_up_to_the_whole():
    torch.manual_seed(0)
    current, mem, predicted = torch.randn(3, 50, 40)
    whole, parts = SpikeMetrics(), SpikeMetrics()
    whole.update(predicted, mem, current)
    for part in zip(predicted.split(7), mem.split(7), current.split(7), strict=True):
        parts.update(*part)
    a, b = whole.score(), parts.score()
    assert (a.wrong_spikes, a.true_spikes, a.steps, a.mae_max) == (b.wrong_spikes, b.true_spikes, b.steps, b.mae_max)
    assert a.mae_mean == pytest.approx(b.mae_mean, rel=1e-12)
    assert a.mae_std == pytest.approx(b.mae_std, rel=1e-9)
    assert evaluate(lambda x: x * 0, current, mem, batch=7) == evaluate(no_memory, current, mem)


def test_given_spikes_count():
    x = torch.zeros(1, 3)
    score = evaluate(no_memory, x, x, torch.tensor([[1, 0, 1]], dtype=torch.uint8))
    assert (score.true_spikes, score.wrong_spikes) == (2, 2)


def test_no_steps_and_no_spikes():
    assert math.isnan(SpikeMetrics().score().mae_mean)
    zero = torch.zeros(2, 3)
    assert evaluate(no_memory, zero, zero).ratio == 0
    assert evaluate(lambda x: x + 2, zero, zero).ratio == math.inf
    assert evaluate(no_memory, zero[:0], zero[:0]).steps == 0


def test_nan_prediction_shows():
    zero = torch.zeros(2, 3)
    score = evaluate(lambda x: x * torch.nan, zero, zero)
    assert math.isnan(score.mae_mean)
    assert math.isnan(score.mae_max)


@pytest.mark.parametrize("tau", [0.125, 0.9])
def test_truncation_over_everything_is_exact(tau):
    current = 0.7 + torch.randn(5, 20)
    mem, _, _ = lif_reference(current, tau)
    assert torch.equal(truncated(current, tau, 20), mem)


def test_truncation_forgets_older_inputs():
    current = torch.randn(3, 30)
    changed = current.clone()
    changed[:, :10] += 3
    assert torch.equal(truncated(changed, 0.5, 4)[:, 14:], truncated(current, 0.5, 4)[:, 14:])
    _, _, u = lif_reference(current[:, 6:10], 0.5)
    torch.testing.assert_close(truncated(current, 0.5, 4)[:, 10], 0.5 * u)


def test_baselines_improve_with_memory_on_white_noise():
    torch.manual_seed(0)
    current = torch.randn(200, 200)
    mem, _, _ = lif_reference(current, 0.125)
    ratios = [evaluate(predict, current, mem).ratio for predict in baselines(0.125).values()]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] == pytest.approx(0.108, abs=0.01)  # s = H(I - 1): accuracy .9837 at rate .152
    assert ratios[-1] == 0
