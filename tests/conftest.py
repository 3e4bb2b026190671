"""What every test may rely on."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _no_run_before():
    """A command of an earlier test must not say where this one was typed: Hydra keeps its last run in a singleton."""
    if module := sys.modules.get("hydra.core.hydra_config"):
        module.HydraConfig.instance().cfg = None
