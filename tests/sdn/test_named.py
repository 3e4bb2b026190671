"""Dotted names: found, and nothing called on the way."""

import argparse
import sys

import pytest
from torch import nn

from sdn import named
from sdn.errors import UserError
from sdn.named import Allow, require_allowed, resolve

MODULE = """
from torch import nn
CALLED = []
class Mine(nn.Linear):
    def __init__(self):
        CALLED.append(1)
def function():
    CALLED.append(2)
thing = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "outsider").mkdir()
    (tmp_path / "outsider" / "parts.py").write_text(MODULE)
    (tmp_path / "outsider" / "broken.py").write_text("1 / 0\n")
    (tmp_path / "outsider" / "poor.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "outsider"
    for name in [name for name in sys.modules if name.split(".")[0] == "outsider"]:
        del sys.modules[name]


def test_finds_a_class(module):
    found = resolve("outsider.parts.Mine", nn.Module, "neuron")
    assert found.__name__ == "Mine"
    assert resolve("outsider.parts.Mine", (dict, nn.Linear)) is found
    assert sys.modules["outsider.parts"].CALLED == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "package.module.Class"),
        (None, "package.module.Class"),
        ("outsider..Mine", "package.module.Class"),
        ("outsider.parts.Mine()", "package.module.Class"),
        ("nowhere.parts.Mine", "no module nowhere; install it"),
        ("outsider.nothing.Mine", "no module outsider.nothing"),
        ("outsider.parts.Mime", "did you mean 'Mine'"),
        ("outsider.parts.function", r"not a subclass of torch.nn.modules.module.Module"),
        ("outsider.parts.thing", "not a subclass"),
        ("torch.nn.Module", "not a subclass"),
        ("os.system", "standard library"),
        ("antigravity.fly", "standard library"),
        ("outsider.broken.Mine", r"ZeroDivisionError: division by zero \(.*broken.py, line 1\)"),
        ("outsider.poor.Mine", "needs a_package_that_nobody_has"),
    ],
)
def test_refuses_in_a_sentence(module, name, message):
    with pytest.raises(UserError, match=message):
        resolve(name, nn.Module, "neuron")
    assert getattr(sys.modules.get("outsider.parts"), "CALLED", []) == []


def test_a_file_names_only_what_the_user_vouches_for(module, monkeypatch, capsys):
    file = {"model": {"layer": {"neuron": {"_name_": "outsider.parts.Mine"}}}, "decoder": {"kind": "sequence"}}
    with pytest.raises(UserError, match=r"names outsider.parts.Mine.*add --allow outsider.parts"):
        require_allowed(file, "net.safetensors")
    assert "outsider.parts" not in sys.modules
    for given in ("outsider", "outsider.parts", "outsider.parts.Mine", "other, outsider"):
        monkeypatch.setenv("SDN_ALLOW", given)
        require_allowed(file, "net.safetensors")
    for given in ("", "out", "outsider.part", "outsider.parts.Mine2"):
        monkeypatch.setenv("SDN_ALLOW", given)
        with pytest.raises(UserError, match="vouch"):
            require_allowed(file, "net.safetensors")
    resolve("outsider.parts.Mine", nn.Module)  # imported by the user's own word
    require_allowed(file, "net.safetensors")


def test_the_option_vouches(monkeypatch):
    monkeypatch.setattr(named, "_allowed", set())
    parser = argparse.ArgumentParser()
    parser.add_argument("--allow", action=Allow)
    parser.parse_args(["--allow", "somewhere", "--allow", "else.where"])
    require_allowed([{"kind": "somewhere.deep.Thing"}, {"_name_": "else.where.Thing"}, {"kind": "linear"}], "a file")
    with pytest.raises(UserError, match="vouch"):
        require_allowed({"_name_": "else.Thing"}, "a file")
