"""Where numba may not compile, layers take the plain way and the engine runs its loops in Python."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import torch
from models.spike import EventEngine, SpikingSSM, fused

torch.manual_seed(0)
model, x = SpikingSSM(32, 1, layer={"neuron": "sltt"}), torch.randn(1, 4, 32)
assert not fused.ready(model, x)
y, _ = model(x)
y.sum().backward()
found = EventEngine(model.eval()).run(x[0].numpy())
torch.testing.assert_close(torch.from_numpy(found), model(x)[0][0].detach(), rtol=0, atol=1e-4)
"""


def test_a_layer_and_the_engine_without_numbas_compiler():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
