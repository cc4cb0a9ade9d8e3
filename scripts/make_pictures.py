#!/usr/bin/env python3
"""Make the pictures of the documentation: the live view, the web page and the report of real runs.

    scripts/make_pictures.py                 # all of them, into docs/pictures
    scripts/make_pictures.py -o /tmp/shots live-view report

Needs tmux, Chromium with its driver (Debian: tmux, chromium, chromium-driver) and the extra dev, two minutes,
and a machine that does nothing else. docs/pictures/families.jpg is what docs/tutorials/images.md makes.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FLOW: Final = ROOT / "scripts" / "_picture_flow.py"
NAMES: Final = ("live-view", "web-run", "web-overview", "web-phone", "report", "report-lanes")
COLUMNS, LINES = 92, 13
PGFLOW: Final = [sys.executable, "-m", "pgflow_mp"]
SVG: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" class="rich-terminal">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich's own, whose fonts come from elsewhere: a picture loads nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "pictures", help="a folder")
    order = parser.parse_args()
    wanted: list[str] = order.names or [*NAMES]
    if odd := set(wanted) - set(NAMES):
        parser.error(f"there is no picture {', '.join(sorted(odd))}")
    try:
        order.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {order.output}: {error.strerror}; name a folder")
    if lacking := [name for name in ("tmux", "chromium", "chromedriver") if shutil.which(name) is None]:
        parser.error(f"{', '.join(lacking)} is not installed")
    with tempfile.TemporaryDirectory(prefix="pictures-", ignore_cleanup_errors=True) as folder:
        shutil.copyfile(FLOW, Path(folder) / "books.py")
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PG", "COLUMNS"))
        }
        environment["PGFLOW_DATA_DIR"] = f"{folder}/data"
        studio = Studio(Path(folder), order.output, environment)
        studio.make(wanted)
    for path in sorted(order.output.iterdir()):
        print(f"{path.stat().st_size:>9,} bytes  {path}")
    return 0


class Studio:
    """A folder with a flow, a database of its own, and what there is to see of them."""

    def __init__(self, folder: Path, output: Path, environment: dict[str, str]) -> None:
        self.folder, self.output, self.environment = folder, output, environment

    def make(self, wanted: list[str]) -> None:
        """Make these pictures, of a run that completed and one that is at work."""
        self.runs(
            *("run", "books.py", "--progress", "off", "--tag", "year=1998", "--input", self.numbers(400))
        )
        completed = json.loads(self.runs("runs", "--json"))["runs"][0]["run_id"]
        if {"report", "report-lanes"} & {*wanted}:
            self.runs("report", completed, "--output", "report.html")
            with browser() as chrome:
                look(chrome, 1100)
                chrome.get((self.folder / "report.html").as_uri())
                for name, start in (("report", ""), ("report-lanes", "Lanes over time")):
                    if name in wanted:
                        shoot(chrome, self.output / f"{name}.png", 960, start)
        self.runs("schedule", "books.py", "--cron", "0 3 * * *", "--input", "[1, 2]", check=False)
        with self.at_work() as screen:
            until(lambda: re.search(r"read .* [45]\d% ", screen()))
            if "live-view" in wanted:
                write_svg(screen(), self.output / "live-view.svg")
            if {"web-run", "web-overview", "web-phone"} & {*wanted}:
                self.shoot_pages(wanted, completed)

    def shoot_pages(self, wanted: list[str], completed: str) -> None:
        """Pictures of the pages that ``serve`` serves, while a run is under way."""
        with self.served() as url, browser() as chrome:
            for name, path, wide, high in (
                ("web-run", f"runs/{completed}", 1100, 1000),
                ("web-overview", "", 1100, 560),
                ("web-phone", f"runs/{completed}", 390, 844),
            ):
                if name in wanted:
                    look(chrome, wide, phone=wide < 500)
                    chrome.get(url + path)
                    time.sleep(2.5)  # until what is under way was drawn anew
                    shoot(chrome, self.output / f"{name}.png", high)

    def numbers(self, count: int) -> str:
        """A file with so many items."""
        path = self.folder / f"{count}.json"
        path.write_text(str([*range(count)]))
        return path.name

    def runs(self, *words: str, check: bool = True) -> str:
        """What a command prints."""
        done = subprocess.run(
            [*PGFLOW, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout

    @contextmanager
    def at_work(self) -> Iterator[Any]:
        """``run`` on a terminal; what answers how that looks."""
        tmux = ["tmux", "-S", f"{self.folder}/tmux"]
        command = f"exec {sys.executable} -m pgflow_mp run books.py --workers 2 --input {self.numbers(600)}"
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        subprocess.run(
            [*tmux, "-f", "/dev/null", "new-session", "-d", *size, command],
            cwd=self.folder,
            env={**self.environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
            check=True,
        )
        subprocess.run([*tmux, "set", "status", "off"], check=True)
        show = [*tmux, "capture-pane", "-e", "-p"]
        try:
            yield lambda: subprocess.run(show, capture_output=True, text=True, check=True).stdout
        finally:
            subprocess.run([*tmux, "send-keys", "C-c"], check=False)
            time.sleep(3)
            subprocess.run([*tmux, "kill-server"], check=False, stderr=subprocess.DEVNULL)

    @contextmanager
    def served(self) -> Iterator[str]:
        """``serve``; its address."""
        process = subprocess.Popen(
            [*PGFLOW, "serve", "--port", "0"],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        said = ""
        try:
            while not (found := re.search(r"http://\S+/", said)):
                if not select.select([process.stderr], [], [], 30)[0]:
                    raise SystemExit(f"serve does not begin: {said}")
                said += os.read(process.stderr.fileno(), 4096).decode()
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


def until(holds: Callable[[], Any], seconds: float = 180) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("what was waited for did not come to be so")
        time.sleep(0.2)


def write_svg(screen: str, path: Path) -> None:
    """What a terminal shows, with its colours, as a picture of letters."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
    path.write_text(
        console.export_svg(title="python -m pgflow_mp run books.py", code_format=SVG, unique_id="live")
    )


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    chrome = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield chrome
    finally:
        chrome.quit()


def look(chrome: Any, wide: int, *, phone: bool = False) -> None:
    metrics = {"width": wide, "height": 900, "deviceScaleFactor": 1, "mobile": phone}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": "light"}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def shoot(chrome: Any, path: Path, high: int, start: str = "") -> None:
    """The page from the heading ``start`` on, or its upper part, at most so many pixels of it."""
    wide, whole, top = chrome.execute_script(
        "const found = [...document.querySelectorAll('h2')].filter(h => h.textContent === arguments[0]);"
        "const top = found.length ? found[0].getBoundingClientRect().top + scrollY - 24 : 0;"
        "return [innerWidth, document.documentElement.scrollHeight, top]",
        start,
    )
    clip = {"x": 0, "y": top, "width": wide, "height": min(high, whole - top), "scale": 1}
    order = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    path.write_bytes(base64.b64decode(chrome.execute_cdp_cmd("Page.captureScreenshot", order)["data"]))


if __name__ == "__main__":
    sys.exit(main())
