"""The site in headless Chromium, opened as files: on a screen and a phone, light and dark, its search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import MODES, SHOTS, SIZES, chromium, look, until

pytestmark = pytest.mark.browser

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, which tells what it asks for."""
    with chromium(60, browser="ALL", performance="ALL") as chrome:
        yield chrome


def visit(browser: Any, page: Path, size: str, mode: str) -> None:
    """Open a page on a screen of this size."""
    look(browser, size, mode)
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


def found_pages(browser: Any) -> set[str]:
    """The files that the search names so far."""
    script = "return [...document.querySelectorAll('ul.search li a')].map(link => link.pathname)"
    return {path.rpartition("/")[2] for path in browser.execute_script(script)}


def overflow(browser: Any) -> int:
    """How many pixels of the page are beside the screen."""
    script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(browser.execute_script(script))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_pages_fit_the_screen_and_ask_nobody(browser: Any, site: Path, size: str, mode: str) -> None:
    complaints(browser)
    bright = {}
    for name in SHOWN:
        visit(browser, site / name, size, mode)
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
        visit(browser, page, "phone", "light")
        if overflow(browser) > 0:
            wide.append(page.relative_to(site).as_posix())
    assert wide == []
    assert complaints(browser) == []


def test_search_finds_pages_without_a_server(browser: Any, site: Path) -> None:
    visit(browser, site / "index.html", "desktop", "light")
    complaints(browser)
    field = browser.find_element("css selector", ".sidebar-search")
    field.send_keys("heartbeat\n")
    until(lambda: {"cli.html", "run.html", "worker.html"} & found_pages(browser), 30)
    browser.get((site / "search.html").as_uri() + "?q=when_exhausted")
    until(lambda: {"options.html", "flows.html"} & found_pages(browser), 30)
    assert complaints(browser) == []
