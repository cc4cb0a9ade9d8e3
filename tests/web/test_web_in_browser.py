"""The page in headless Chromium: every page in both sizes and modes, what changes, keys, actions, attacks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from chromium import MODES, SHOTS, SIZES, chromium, look, until
from web_flows import Shown
from web_harness import Served

from pgflow_mp.db import engine, wire

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with chromium(20, browser="ALL") as chrome:
        yield chrome


def complaints(browser: Any) -> list[str]:
    """What the browser has written to its console since it was asked last."""
    return [entry["message"] for entry in browser.get_log("browser")]


def text(browser: Any) -> str:
    found: str = browser.execute_script("return document.body.innerText")
    return found


def until_at(browser: Any, path: str) -> None:
    until(lambda: browser.execute_script("return location.pathname") == path)


def until_said(browser: Any, words: str) -> None:
    until(lambda: words in text(browser))


def type_keys(browser: Any, keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(keys).perform()


def pages(shown: Shown) -> dict[str, str]:
    run = f"/runs/{shown.completed}"
    return {
        "overview": "/",
        "runs": "/runs",
        "run": run,
        "failed-run": f"/runs/{shown.failed}",
        "waiting-run": f"/runs/{shown.waiting}",
        "step": f"{run}/steps/measure",
        "item": f"{run}/steps/measure/2",
        "failures": f"{run}/failures/measure",
        "workers": "/workers?all=1",
        "flows": "/flows",
        "flow": "/flows/shown",
        "schedules": "/schedules",
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_pages_fit_the_screen_and_no_script_fails(
    browser: Any, page: Served, shown: Shown, size: str, mode: str
) -> None:
    look(browser, size, mode)
    complaints(browser)
    for name, path in pages(shown).items():
        browser.get(page.url.rstrip("/") + path)
        over = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, (name, over)
        ink, paper = browser.execute_script(
            "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        )
        bright = [sum(map(int, colour[4:-1].split(", "))) for colour in (ink, paper)]
        assert (bright[0] < bright[1]) == (mode == "light"), (name, ink, paper)
        assert browser.title not in ("attacked", "")
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            browser.save_screenshot(f"{SHOTS}/{name}-{size}-{mode}.png")
    assert complaints(browser) == []


def test_texts_of_runs_attack_in_vain(browser: Any, page: Served, shown: Shown) -> None:
    look(browser)
    for path in pages(shown).values():
        browser.get(page.url.rstrip("/") + path)
        until(
            lambda: browser.execute_script(
                "return document.getElementById('state').dataset.state !== 'still'"
                " || !document.body.dataset.live"
            )
        )
        assert browser.execute_script("return document.querySelectorAll('main img, main script').length") == 0
        assert "attacked" not in browser.title
    assert complaints(browser) == []


def test_the_browser_obeys_the_policy(browser: Any, page: Served) -> None:
    browser.get(page.url)
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'document.title = \"attacked\"';"
        "document.body.append(script);"
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:1/x.png';"
        "document.body.append(image)"
    )
    assert browser.title != "attacked"
    found = until(lambda: complaints(browser))
    assert all("Content Security Policy" in line for line in found), found


def test_what_changes_is_seen_and_what_was_opened_stays(browser: Any, page: Served, shown: Shown) -> None:
    look(browser)
    with psycopg.connect(shown.dsn, autocommit=True) as conn:
        wire.adapt(conn)
        run = engine.start_flow(conn, "lonely", b"[1, 2]")
        browser.get(f"{page.url}runs/{run}")
        until(lambda: "live" in browser.find_element("id", "state").text)
        assert "queued" in text(browser)
        browser.execute_script("document.querySelector('#steps a').focus()")
        engine.cancel_run(conn, run, "enough")
        until(lambda: "cancelled" in text(browser) and "Ended" in text(browser))
        assert browser.execute_script("return document.activeElement.textContent") == "encode"
    assert complaints(browser) == []


def test_a_page_that_loses_the_server_says_so(browser: Any, page: Served, shown: Shown) -> None:
    browser.get(page.url)
    until(lambda: "live" in browser.find_element("id", "state").text)
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.execute_script("dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow'))")
    until(lambda: "lost" in browser.find_element("id", "state").text)
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    until(lambda: "live" in browser.find_element("id", "state").text, 40)
    complaints(browser)


def test_keys_lead_everywhere(browser: Any, page: Served, shown: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    look(browser)
    browser.get(page.url)
    for key, path in (("r", "/runs"), ("w", "/workers"), ("f", "/flows"), ("s", "/schedules"), ("o", "/")):
        type_keys(browser, "g" + key)
        until_at(browser, path)
    type_keys(browser, "?")
    assert browser.execute_script("return document.getElementById('help').open")
    type_keys(browser, Keys.ESCAPE)
    until(lambda: not browser.execute_script("return document.getElementById('help').open"))
    browser.get(f"{page.url}runs")
    type_keys(browser, "jj")
    second = browser.execute_script("return document.activeElement.getAttribute('href')")
    assert (
        second == browser.execute_script("return document.querySelectorAll('tr[data-row] a')[2].pathname")
        or second
    )
    type_keys(browser, Keys.ENTER)
    until(lambda: browser.execute_script("return location.pathname") == second)
    type_keys(browser, "u")
    until(lambda: browser.execute_script("return location.pathname") == "/runs")
    type_keys(browser, "/")
    assert browser.execute_script("return document.activeElement.name") == "flow"
    type_keys(browser, "gr" + Keys.ESCAPE)
    assert browser.execute_script("return document.activeElement === document.body")
    browser.get(f"{page.url}runs/{shown.completed}/steps/measure")
    type_keys(browser, "n")
    until(lambda: "start=50" in browser.current_url)
    assert complaints(browser) == []


def test_actions_are_done(browser: Any, acting: Served, shown: Shown) -> None:
    look(browser, "phone", "dark")
    link = acting.said.partition("Open ")[2].split()[0]
    browser.get(link)
    assert "token" not in browser.current_url
    with psycopg.connect(shown.dsn, autocommit=True) as conn:
        wire.adapt(conn)
        runs = [engine.start_flow(conn, "lonely", b"[1]") for _ in range(2)]
        browser.get(f"{acting.url}runs/{runs[0]}")
        until(lambda: "live" in browser.find_element("id", "state").text)
        for words in ("Paused.", "Resumed."):
            until(lambda: browser.find_elements("css selector", "#head button"))[0].click()
            until_said(browser, words)
            until(lambda: "live" in browser.find_element("id", "state").text)
        time.sleep(1.5)  # a part that was drawn anew still has its forms
        browser.find_element("css selector", "button[value=cancel]").click()
        until(lambda: f"Cancel run {runs[0]}?" in text(browser))
        browser.find_element("css selector", "main button[value=cancel]").click()
        until(lambda: "Cancelled." in text(browser))
        assert engine.run_status(conn, runs[0]) == "failed"
        look(browser)
        browser.get(f"{acting.url}runs?flow=lonely&state=queued")
        browser.find_element("css selector", f"input[value='{runs[1]}']").click()
        browser.find_element("css selector", ".bulk button[value=cancel]").click()
        until(lambda: "Cancel 1 run?" in text(browser))
        browser.find_element("css selector", "main button[value=cancel]").click()
        until(lambda: "Cancelled 1 run." in text(browser))
        assert engine.run_status(conn, runs[1]) == "failed"
    assert complaints(browser) == []


def test_a_form_on_another_site_does_nothing(browser: Any, acting: Served, shown: Shown) -> None:
    browser.get(acting.said.partition("Open ")[2].split()[0])
    target = f"{acting.url}runs/{shown.queued}"
    fields = "<input name=action value=cancel><input name=sure value=1>"
    form = f"<form method=post action='{target}'>{fields}</form>"
    browser.get("data:text/html," + form + "<script>document.forms[0].submit()</script>")
    until(lambda: "another site" in text(browser) or "token" in text(browser).lower())
    with psycopg.connect(shown.dsn, autocommit=True) as conn:
        assert engine.run_status(conn, shown.queued) == "started"
    complaints(browser)
