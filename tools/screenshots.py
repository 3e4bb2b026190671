"""Write docs/live.html, the page of the networks that ship, and its pictures for the README, light and dark.

python tools/screenshots.py        needs Chromium with its driver, and pip install selenium
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver

from sdn.errors import UserError, door
from src.live.page import export_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
NETWORKS = {"digits": "digits", "qtdb": "electrocardiogram"}
WIDTH, HEIGHT = 1320, 936
FLAGS = "headless=new no-sandbox disable-gpu hide-scrollbars no-first-run disable-background-networking disable-sync"
SAMPLE, STEP = 15, 45


@door
def main() -> None:
    """Page and pictures."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        raise UserError("the pictures need Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    export_page(list(NETWORKS), DOCS / "live.html", list(NETWORKS.values()))
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS.split(), f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        with webdriver.Chrome(options, webdriver.chrome.service.Service(driver)) as browser:
            for theme in ("light", "dark"):
                picture(browser, theme).save(DOCS / f"live-{theme}.webp", quality=88, method=6)


def picture(browser: webdriver.Chrome, theme: str) -> Image.Image:
    """The top of the page while it reads a digit."""
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1.25, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get((DOCS / "live.html").as_uri())
    browser.execute_script(f"live.choose({SAMPLE}); live.restart(); for (let t = 0; t < {STEP}; t++) live.oneStep();")
    for _ in range(8):  # measurements of the time of a step
        browser.execute_async_script("live.refresh(); setTimeout(arguments[0], 600)")
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


if __name__ == "__main__":
    sys.exit(main())
