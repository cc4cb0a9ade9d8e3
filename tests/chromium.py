"""Headless Chromium for tests: its screens, its modes, and waiting for what it shows."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
MODES = ("light", "dark")
SHOTS = os.environ.get("PGFLOW_TEST_SHOTS", "")
"""A folder for screenshots, for whoever wants to look at them."""


@contextmanager
def chromium(load_seconds: float, **logs: str) -> Iterator[Any]:
    """Chromium without a window, which keeps these logs; skips the test where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    found, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.skip("Chromium is not installed")
    options = Options()
    options.binary_location = found
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", logs)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(load_seconds)
    try:
        yield chrome
    finally:
        chrome.quit()


def look(browser: Any, size: str = "desktop", mode: str = "light") -> None:
    """Choose the size of the screen, and light or dark."""
    wide, high = SIZES[size]
    metrics = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def until(holds: Callable[[], Any], seconds: float = 15) -> Any:
    """What ``holds`` answers, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.05)
    return found
