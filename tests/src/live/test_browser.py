"""The page in a real browser: Python's numbers, drawing, keys, both themes, both widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.spike.network import load
from src.dataloaders.digits import Digits
from src.dataloaders.preview import fetch, spread
from src.live.page import entry, write_live_page


@pytest.fixture
def page(browser, tmp_path, signals, make_network):
    """The page of the shipped digits network and of a random one with a class a step, open in the browser."""
    data = Digits()
    data.setup()
    per_step = make_network(decoder={"kind": "per_step", "d_output": 3})
    entries = [entry(load("digits"), data, "digits"), entry(per_step, signals, "signals")]
    write_live_page(tmp_path / "page.html", entries)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get((tmp_path / "page.html").as_uri())
    yield browser
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []


def wait(page, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 60).until(lambda _: page.execute_script(f"return {condition}"))


def text(page, element):
    return page.find_element("id", element).text


def test_a_hundred_samples_have_the_logits_of_python(page):
    data = Digits()
    data.setup()
    x, y, _ = fetch(data, "test", spread(len(data.test), 100))
    with torch.no_grad():
        expected = load("digits")(x).numpy()
    found = page.execute_script("return check(live.entry, live.weights, live.samples)")
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-4)
    assert (np.argmax(found["logits"], 1) == expected.argmax(1)).all()
    assert found["same"] == 100
    page.find_element("id", "check").click()
    assert text(page, "check-result").startswith("100 of 100 answers are equal")
    labels = page.execute_script("return Array.from({ length: 100 }, (_, i) => live.samples.get(i).label)")
    assert labels == y.tolist()


def test_a_sample_runs_by_itself_and_its_verdict_is_said(page):
    page.execute_script("document.getElementById('go-on').checked = false; live.setSpeed(100); live.choose(7)")
    wait(page, "live.run.done && !live.playing")
    wait(page, "document.getElementById('truth').textContent.endsWith('✓')")
    label = page.execute_script("return live.samples.get(7).label")
    assert text(page, "verdict") == str(label)
    assert f"The label is {label}" in page.find_element("id", "spoken").get_attribute("textContent")
    steps = page.execute_script("return [live.run.t, live.run.counters().all, live.run.counters().allDense]")
    assert steps[0] == 64
    assert 0 < steps[1] < steps[2]
    page.execute_script("document.getElementById('go-on').checked = true; live.choose(7, true)")
    wait(page, "live.index === 8")


def test_a_drawn_one_is_read_as_a_one(page):
    from selenium.webdriver import ActionChains

    page.execute_script("live.setSpeed(100)")
    pad = page.find_element("id", "pad")
    ActionChains(page, duration=20).move_to_element_with_offset(pad, 10, -60).click_and_hold().move_by_offset(
        0, 60
    ).move_by_offset(0, 60).release().perform()
    wait(page, "live.index === null && live.run.done")
    wait(page, "document.getElementById('verdict-word').textContent === 'reads'")
    assert text(page, "verdict") == "1"
    assert "your drawing" in text(page, "truth")
    page.find_element("id", "clear").click()
    assert page.execute_script("return live.pad.grey.every((value) => value === 0) && live.run.t === 0")


def test_keys_play_step_choose_and_draw(page):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()

    page.execute_script("live.pause(); document.body.focus()")
    press("n", " ")
    assert page.execute_script("return [live.index, live.playing]") == [1, False]
    press("r", " ", "s", "s")
    assert page.execute_script("return live.playing") is False
    before = page.execute_script("return live.run.t")
    press("s")
    assert page.execute_script("return live.run.t") == before + 1
    press("p")
    assert page.execute_script("return live.index") == 0
    page.execute_script("live.rasters[1].canvas.focus(); live.watch(1, 20)")
    press(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_DOWN)
    assert page.execute_script("return live.run.watched") == {"layer": 1, "neuron": 21}
    page.execute_script("live.clearPad(); document.getElementById('pad').focus()")
    press(Keys.ARROW_DOWN, " ", Keys.ARROW_RIGHT, " ")
    assert page.execute_script("return live.pad.grey.reduce((sum, value) => sum + value)") == 2


def test_every_step_has_a_label_and_names_stay_text(page, signals):
    page.execute_script("live.open(1); document.getElementById('go-on').checked = false; live.setSpeed(100)")
    wait(page, "live.run.done && !live.playing")
    wait(page, "document.getElementById('truth').textContent.includes('right so far')")
    items = page.find_elements("css selector", "#classes li")
    assert items[2].text.startswith("π")
    shown = page.execute_script(
        "return [...document.querySelectorAll('#classes li')].map((e) => e.firstChild.textContent)"
    )
    assert shown == list(signals.class_names)
    assert not page.find_element("id", "drawing").is_displayed()
    found = page.execute_script("return check(live.entry, live.weights, live.samples)")
    assert found["same"] == found["compared"]


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_widths_and_themes_are_readable(page, width, theme):
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for k in (0, 1):
        page.execute_script(f"live.open({k})")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    ratio = """
      const light = (colour) => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255);
        const part = parts.map((value) => (value <= 0.04 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
      };
      const card = light(getComputedStyle(document.querySelector(".card")).backgroundColor);
      return ["#truth", ".small", "#lead", ".counters dt"].map((name) => {
        const ink = light(getComputedStyle(document.querySelector(name)).color);
        return (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05);
      });
    """
    assert min(page.execute_script(ratio)) > 4.5
    scheme = "return getComputedStyle(document.documentElement).colorScheme"
    assert page.execute_script(scheme) == theme
    page.execute_script("document.getElementById('theme').click()")
    assert page.execute_script(scheme) != theme
