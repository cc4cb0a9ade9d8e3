"""A served web page in a process of its own, and somebody who asks it as a browser does, or an attacker."""

from __future__ import annotations

import http.client
import os
import re
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

from cli_harness import Cli, Done

TOKEN = "a-token-of-the-tests-0123456789"
BROWSER = {"Accept": "text/html", "Sec-Fetch-Site": "none"}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def words(self) -> str:
        """What a reader sees, in one line."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.text)).split())


@dataclass
class Served:
    """``serve`` at work, and a browser's cookies for it."""

    process: subprocess.Popen[str]
    url: str
    port: int
    said: str
    cookies: dict[str, str] = field(default_factory=dict)
    mark: str = ""

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str | None] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request, with our cookies; headers that are None are left away."""
        sent: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}", **BROWSER}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            body = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            sent["Origin"] = f"http://127.0.0.1:{self.port}"
            sent["Sec-Fetch-Site"] = "same-origin"
        if body is not None:
            sent["Content-Length"] = str(len(body))
        sent.update(headers or {})
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            conn.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    conn.putheader(name, value)
            conn.endheaders(body)
            got = conn.getresponse()
            text = got.read().decode()
            for cookie in got.headers.get_all("set-cookie") or ():
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, text)
        finally:
            conn.close()

    def post(self, path: str, **form: str) -> Answer:
        """A form as our own page sends it, with the mark that the page has."""
        found = re.search(r'name="mark" value="([0-9a-f]+)"', self.ask("/runs").text)
        self.mark = found[1] if found else self.mark
        return self.ask(path, "POST", form={"mark": self.mark, **form})

    def follow(self, answer: Answer) -> Answer:
        """The page that a redirection leads to."""
        assert answer.status == 303, (answer.status, answer.words)
        return self.ask(answer.headers["location"])

    def enter(self) -> None:
        """Go in by the link that was printed."""
        link = re.search(r"http://\S+(/enter\?token=\S+)", self.said)
        assert link, self.said
        assert self.ask(link[1]).status == 303

    def stop(self, number: int = 15) -> Done:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return Done(self.process.returncode, out, self.said + err)


def serve(cli: Cli, *options: str, **env: str) -> Served:
    """Start it on a free port; returns once browsers may come."""
    process = cli.start("serve", "--port", "0", *options, **env)
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 30
    while "Ctrl-C ends it" not in said:
        assert time.monotonic() < deadline, said
        if select.select([process.stderr], [], [], 0.2)[0]:
            piece = os.read(process.stderr.fileno(), 1 << 16).decode()
            assert piece, said
            said += piece
    found = re.search(r"(http://[^\s/]+:(\d+)/)", said)
    assert found, said
    return Served(process, found[1], int(found[2]), said)


def home(path: Path) -> Path:
    """An empty folder to call ``serve`` from."""
    path.mkdir(parents=True, exist_ok=True)
    return path


class Outline(HTMLParser):
    """What a page is made of: its elements with their attributes, and what is wrong with it."""

    VOID = frozenset(("meta", "link", "img", "input", "br", "hr", "rect", "path", "circle"))

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{name}> is never closed" for name in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len({name for name, _ in attrs}) < len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes what is not open")

    def links(self) -> list[str]:
        """Where the page leads, inside of it."""
        return [
            attributes["href"] or ""
            for tag, attributes in self.elements
            if tag == "a" and "href" in attributes
        ]
