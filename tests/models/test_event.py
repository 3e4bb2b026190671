"""The event-driven engine is the model's own recurrence, faster."""

import numpy as np
import pytest
import torch

from models.spike.event import EventEngine
from models.spike.ssm import SpikingSSM
from sdn.errors import UserError

CASES = {
    "pre layer plain": dict(prenorm=True, norm="layer", layer=dict(neuron="sltt")),
    "post batch plain": dict(prenorm=False, norm="batch", layer=dict(neuron="sltt", shared_vth=True)),
    "pre batch B soft": dict(prenorm=True, norm="batch", layer=dict(neuron="bptt", reset="soft", trainable_B=True)),
    "no norm, reset value": dict(norm="none", layer=dict(neuron="sltt", u_r=-0.3, learnable_vth=False)),
}


def _model(options, H=24, n_layers=3):
    torch.manual_seed(0)
    model = SpikingSSM(H, n_layers=n_layers, **options)
    model.train()
    model(torch.randn(4, 50, H))  # batch norm gets statistics that are not the identity
    return model.double().eval()


@pytest.mark.parametrize("name", CASES)
def test_engine_equals_step_and_parallel_forward(name):
    model = _model(CASES[name])
    x = torch.randn(1, 200, 24, dtype=torch.float64)
    engine = EventEngine(model, np.float64)
    y = engine.run(x[0].numpy())
    with torch.no_grad():
        parallel, _ = model(x)
    np.testing.assert_allclose(y, parallel[0].numpy(), rtol=0, atol=1e-10)
    state, steps = model.initial_state(1), []
    for x_t in x.unbind(1):
        y_t, state = model.step(x_t, state)
        steps.append(y_t)
    np.testing.assert_allclose(y, torch.cat(steps).numpy(), rtol=0, atol=1e-10)


def test_steps_blocks_and_a_prefix_run_in_parallel_agree():
    model = _model(CASES["pre layer plain"])
    x = torch.randn(1, 90, 24, dtype=torch.float64)
    whole, engine = EventEngine(model, np.float64), EventEngine(model, np.float64)
    expected = whole.run(x[0].numpy())
    got = np.concatenate([engine.run(x[0, :40].numpy()), *(engine.step(x_t)[None].copy() for x_t in x[0, 40:].numpy())])
    np.testing.assert_array_equal(got, expected)
    assert engine.steps == 90
    np.testing.assert_array_equal(engine.spikes, whole.spikes)
    with torch.no_grad():
        _, state = model(x[:, :40], model.initial_state(1))
    engine.reset()
    engine.load_state(state)
    np.testing.assert_allclose(engine.run(x[0, 40:].numpy()), expected[40:], rtol=0, atol=1e-10)


def test_firing_rates_are_those_of_the_neurons():
    model = _model(CASES["post batch plain"])
    x = torch.randn(1, 120, 24, dtype=torch.float64)
    rates = []
    hooks = [la.neuron.register_forward_hook(lambda m, i, out: rates.append(out.mean().item())) for la in model.layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    engine = EventEngine(model, np.float64)
    engine.run(x[0].numpy())
    np.testing.assert_allclose(engine.firing_rates, rates, rtol=0, atol=1e-12)


def test_refusals_are_sentences():
    with pytest.raises(UserError, match="bidirectional"):
        EventEngine(SpikingSSM(4, 1, layer=dict(neuron="sltt", bidirectional=True)).eval())
    engine = EventEngine(SpikingSSM(4, 1, layer=dict(neuron="sltt")).eval())
    with pytest.raises(UserError, match="shape"):
        engine.run(np.zeros((3, 5)))
    with pytest.raises(UserError, match="batch 1"):
        engine.load_state([])
