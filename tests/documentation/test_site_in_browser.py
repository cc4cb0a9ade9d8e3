"""The site in headless Chromium, opened as files: on a screen and a phone, light and dark, its search."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SHOWN = (
    "index.html",
    "flows.html",
    "options.html",
    "cli.html",
    "errors.html",
    "contract/sql.html",
    "reference/python/client.html",
    "reference/commands/run.html",
    "reference/sql/worker.html",
    "how-do-i/write-a-flow.html",
)
SHOTS = os.environ.get("PGFLOW_TEST_SHOTS", "")
"""A folder for screenshots, for whoever wants to look at them."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, and without a way to other machines."""
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()


def look(browser: Any, page: Path, size: str, mode: str) -> None:
    """Open a page on a screen of this size."""
    wide, high = SIZES[size]
    metrics = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())


def complaints(browser: Any) -> list[str]:
    """What is in its console, and what it asked for that is no file of ours."""
    told = [str(entry["message"]) for entry in browser.get_log("browser")]
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = str(message["params"]["request"]["url"])
            if not address.startswith(("file:", "data:", "chrome:", "about:")):
                told.append(f"asked for {address}")
    return told


def until(holds: Callable[[], Any], seconds: float = 30) -> Any:
    """What ``holds`` answers, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.1)
    return found


def found_pages(browser: Any) -> set[str]:
    """The files that the search names so far."""
    script = "return [...document.querySelectorAll('ul.search li a')].map(link => link.pathname)"
    return {path.rpartition("/")[2] for path in browser.execute_script(script)}


def overflow(browser: Any) -> int:
    """How many pixels of the page are beside the screen."""
    script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(browser.execute_script(script))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_pages_fit_the_screen_and_ask_nobody(browser: Any, site: Path, size: str, mode: str) -> None:
    complaints(browser)
    bright = {}
    for name in SHOWN:
        look(browser, site / name, size, mode)
        assert overflow(browser) <= 0, name
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        bright[name] = sum(int(part) for part in color.strip("rgba()").split(",")[:3]) > 3 * 128
        if SHOTS:
            shot = Path(SHOTS, f"{name.replace('/', '-').removesuffix('.html')}-{size}-{mode}.png")
            browser.save_screenshot(str(shot))
    assert set(bright.values()) == {mode == "light"}
    assert complaints(browser) == []


def test_every_page_fits_a_phone(browser: Any, site: Path) -> None:
    complaints(browser)
    wide = []
    for page in sorted(site.rglob("*.html")):
        look(browser, page, "phone", "light")
        if overflow(browser) > 0:
            wide.append(page.relative_to(site).as_posix())
    assert wide == []
    assert complaints(browser) == []


def test_search_finds_pages_without_a_server(browser: Any, site: Path) -> None:
    look(browser, site / "index.html", "desktop", "light")
    complaints(browser)
    field = browser.find_element("css selector", ".sidebar-search")
    field.send_keys("heartbeat\n")
    until(lambda: {"cli.html", "run.html", "worker.html"} & found_pages(browser))
    browser.get((site / "search.html").as_uri() + "?q=when_exhausted")
    until(lambda: {"options.html", "flows.html"} & found_pages(browser))
    assert complaints(browser) == []
