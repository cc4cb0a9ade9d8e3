"""How the web page is served: plain data, checked before anything is bound."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field, replace

from pgflow_mp.errors import ConfigError

SHORTEST_TOKEN = 16
"""Characters: what is shorter can be guessed."""
NEW_TOKEN = "auto"  # noqa: S105
"""In the place of a token: one is made for as long as the page is served."""


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Where the page is served, and what may be done there.

    ``token``: what a visitor has to bring; None: nothing. ``allowed_hosts``: names by which the page may be
    asked for besides its own. ``place``: the database in words, without secrets. ``options``: what a command
    line needs to find the same database. ``interval``: least seconds between two looks into the database.
    """

    host: str = "127.0.0.1"
    port: int = 8470
    allow_actions: bool = False
    token: str | None = field(default=None, repr=False)
    without_token: bool = False
    allowed_hosts: tuple[str, ...] = ()
    place: str = ""
    options: tuple[str, ...] = ()
    interval: float = 1.0

    def checked(self) -> PageSettings:
        """The same with a token made where one is asked for. Raises ConfigError for what is not safe."""
        token = self.token
        if self.without_token and (token is not None or self.allow_actions):
            other = "a token" if token is not None else "--allow-actions"
            raise ConfigError(
                f"--without-token and {other} cannot be used together",
                hint="Whoever may act has to show the token; without one everybody may read, nobody act.",
            )
        if token is None and self.allow_actions:
            token = NEW_TOKEN
        if token is None and not self.without_token and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} lets others in: they would read all inputs and results",
                hint="Give --token auto, or one of yours in PGFLOW_WEB_TOKEN; --without-token if all may.",
            )
        if token is not None and token != NEW_TOKEN and len(token) < SHORTEST_TOKEN:
            raise ConfigError(
                f"A token of {len(token)} characters can be guessed; {SHORTEST_TOKEN} are the least",
                hint="--token auto makes one.",
            )
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError("A token is made of printable ASCII characters, without spaces")
        for name in self.allowed_hosts:
            if not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:]+\]?", name):
                raise ConfigError(
                    f"--allowed-host {name!r} is not the name of a host",
                    hint="Give the name alone, without http://, port and path: runs.example.org.",
                )
        return replace(self, token=secrets.token_urlsafe(24) if token == NEW_TOKEN else token)

    def names(self) -> frozenset[str]:
        """The names by which the page may be asked for, in lower case; addresses may be any, see guard.py."""
        own = {"localhost", self.host.lower()}
        if not is_loopback(self.host):
            own |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return frozenset(own | {name.lower().rstrip(".") for name in self.allowed_hosts})


def is_loopback(host: str) -> bool:
    """Whether only this machine gets at this address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(host: str, port: int) -> str:
    """What to type into a browser; a server on all addresses is reached by this machine's loopback."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}/"
