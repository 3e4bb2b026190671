"""What every test may rely on, and the order of files among several processes."""

import sys

import pytest

# Their tests are few and wait for commands, a minute in all or more: last, one of them would keep one process waiting.
FIRST = ("test_gpu_kernels.py", "test_own_classes.py", "test_disks.py", "test_extend.py", "test_kills.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(autouse=True)
def _no_run_before():
    """A command of an earlier test must not say where this one was typed: Hydra keeps its last run in a singleton."""
    if module := sys.modules.get("hydra.core.hydra_config"):
        module.HydraConfig.instance().cfg = None
