import numpy as np
import pytest

from sdn.errors import UserError
from sdn.fitting.laws import LAWS, make_law


def draw(rows=400, length=500, **law):
    return make_law(**law).draw(np.random.default_rng(0), rows, length).astype(np.float64)


@pytest.mark.parametrize("name", LAWS)
def test_float32_contiguous_and_repeatable(name):
    law = make_law(name)
    one, two = (law.draw(np.random.default_rng(5), 7, 11) for _ in range(2))
    assert one.shape == (7, 11)
    assert one.dtype == np.float32
    assert one.flags.c_contiguous
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)


def test_white_has_its_moments_and_no_memory():
    x = draw(name="white", mean=0.9, std=0.3)
    assert x.mean() == pytest.approx(0.9, abs=0.01)
    assert x.std() == pytest.approx(0.3, abs=0.01)
    assert np.mean((x[:, 1:] - 0.9) * (x[:, :-1] - 0.9)) / 0.09 == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("rho", [-0.5, 0.8, 0.99])
def test_ar1_is_stationary_with_correlation_rho(rho):
    x = draw(name="ar1", mean=0.8, std=0.2, rho=rho, rows=4000, length=100)
    z = (x - 0.8) / 0.2
    for t in (0, 1, 99):
        assert z[:, t].std() == pytest.approx(1, abs=0.04)
    assert np.mean(z[:, 1:] * z[:, :-1]) == pytest.approx(rho, abs=0.03)


def test_constant_is_a_level_a_sequence_plus_noise():
    x = draw(name="constant", mean=1.0, std=0.5, noise=0.1)
    levels = x.mean(1)
    assert levels.min() > 0.45
    assert levels.max() < 1.55
    assert levels.std() == pytest.approx(1 / 12**0.5, abs=0.03)
    assert (x - levels[:, None]).std() == pytest.approx(0.1, abs=0.005)
    assert np.ptp(draw(name="constant", noise=0.0), axis=1).max() == 0


def test_mixture_spans_scales_and_correlations():
    x = draw(name="mixture", rows=2000, length=300)
    z = x - x.mean(1, keepdims=True)
    correlation = (z[:, 1:] * z[:, :-1]).mean(1) / z.var(1)
    assert 0.1 < (correlation > 0.5).mean() < 0.3
    assert (x.std(1) < 0.3).any()
    assert (x.std(1) > 2).any()
    np.testing.assert_allclose(
        draw(name="mixture", mean=1.0, std=2.0, rows=5), 1 + 2 * draw(name="mixture", rows=5), 1e-4, 1e-4
    )


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ({"name": "pink"}, "unknown law 'pink'"),
        ({"std": -1.0}, "cannot be negative"),
        ({"mean": float("nan")}, "finite"),
        ({"name": "ar1", "rho": 1.0}, "between -1 and 1"),
        ({"name": "constant", "noise": -0.1}, "cannot be negative"),
        ({"rho": 0.5}, "belongs to the law ar1"),
        ({"name": "ar1", "noise": 0.5}, "belongs to the law constant"),
    ],
)
def test_nonsense_is_refused(law, words):
    with pytest.raises(UserError, match=words):
        make_law(**law)
