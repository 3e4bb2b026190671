"""A JavaScript engine without a browser, a browser, and data sets small enough to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from models.spike.network import Network
from src.dataloaders.base import SequenceData, TensorSet
from src.live.page import HERE

ATOB = """
const atob = (text) => {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let [bytes, bits, kept] = ["", 0, 0];
  for (const letter of text.replace(/=+$/, "")) {
    bits = ((bits << 6) | letters.indexOf(letter)) & 0xffffff;
    kept += 6;
    if (kept >= 8) bytes += String.fromCharCode((bits >> (kept -= 8)) & 255);
  }
  return bytes;
};
"""


@pytest.fixture
def javascript() -> Iterator[Callable[..., Any]]:
    """``javascript(code, name=value, ...)``: engine.js and run.js in V8; values go in and come out as JSON."""
    engine = pytest.importorskip("py_mini_racer", reason="mini-racer runs the page's engine; pip install mini-racer")
    context = engine.MiniRacer()
    try:
        context.eval(ATOB + "".join((HERE / name).read_text() for name in ("engine.js", "run.js")))

        def run(code: str, **values: Any) -> Any:
            given = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
            return json.loads(context.eval(f"(() => {{ {given} return JSON.stringify((() => {{ {code} }})()); }})()"))

        yield run
    finally:
        context.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, driven by selenium; skipped where there is none."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver is installed (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser; pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-dev-shm-usage "
    flags += "disable-background-networking disable-component-update disable-sync "
    flags += f"user-data-dir={tmp_path_factory.mktemp('profile')}"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    chromium = webdriver.Chrome(options=options, service=service)
    chromium.set_page_load_timeout(120)
    chromium.set_script_timeout(120)
    yield chromium
    chromium.quit()


def network(
    encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None, width: int = 10, **model: Any
) -> Network:
    """A random network in evaluation mode whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    layer = {"neuron": "sltt", "d_state": 8, "dt_max": 0.5} | model.pop("layer", {})
    spec = {
        "model": {"d_model": width, "n_layers": 2, **model, "layer": layer},
        "encoder": encoder or {"kind": "linear", "d_input": 2},
        "decoder": decoder or {"kind": "sequence", "d_output": 3},
    }
    made = Network(spec)
    made.backbone.train()
    made.backbone(torch.randn(4, 50, width))
    return made.eval()


class Signals(SequenceData):
    """Random signals with a class a step, of lengths that differ."""

    _name_ = "signals"
    d_input, d_output = 2, 3
    class_names = ("</script><script>alert(1)</script>", "<b>&amp;", "π")

    def setup(self) -> None:
        torch.manual_seed(1)
        self.test = TensorSet(torch.randn(6, 40, 2), torch.randint(0, 3, (6, 40)))

    def collate(self, batch: Any) -> Any:
        x, y = batch
        lengths = torch.arange(len(x)) + 35
        return x, y, {"lengths": lengths}


class Tokens(SequenceData):
    """Random token ids with a class a sequence."""

    _name_ = "tokens"
    n_tokens, d_output = 7, 3

    def setup(self) -> None:
        torch.manual_seed(1)
        self.test = TensorSet(torch.randint(0, 7, (5, 20)), torch.randint(0, 3, (5,)))


@pytest.fixture
def signals() -> Signals:
    data = Signals()
    data.setup()
    return data


@pytest.fixture
def tokens() -> Tokens:
    data = Tokens()
    data.setup()
    return data


@pytest.fixture
def make_network() -> Callable[..., Network]:
    return network
