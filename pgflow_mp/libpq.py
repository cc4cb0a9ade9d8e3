"""The environment variables of libpq, which are about other servers, and the embedded one.

libpq mixes them into every connection string that does not name the parameter, and fails where they make
no sense. Most can be overruled in the string; a few can only be taken out of the environment.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

_SUPERVISOR: Final = "control"
"""The socket beside the server's own on which an embedded one is asked for."""
_ALWAYS_NAMED: Final = {"host", "port", "user", "dbname", "service"}
_NEUTRAL: Final = {
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "prefer",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "sslcertmode": "allow",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
}
"""Where neither libpq's own default nor an empty value will do."""
_NOT_IN_STRINGS: Final = ("PGSERVICE", "PGSERVICEFILE", "PGTZ", "PGDATESTYLE", "PGGEQO", "PGREQUIRESSL")


def overruled(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Parameters of a connection string that undo what the environment says about other servers."""
    from psycopg import pq

    found: dict[str, str] = {}
    for option in pq.Conninfo.get_defaults():
        keyword, variable = option.keyword.decode(), (option.envvar or b"").decode()
        if variable in environment and keyword not in _ALWAYS_NAMED:
            found[keyword] = _NEUTRAL.get(keyword, (option.compiled or b"").decode())
    if "PGREQUIRESSL" in environment:
        found.setdefault("sslmode", _NEUTRAL["sslmode"])
    return found


class _Hiding:
    """Takes variables out of the environment while at least one thread wants them away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._hidden: dict[str, str] = {}

    def begin(self) -> None:
        with self._lock:
            self._users += 1
            for name in _NOT_IN_STRINGS:
                if (value := os.environ.pop(name, None)) is not None:
                    self._hidden[name] = value

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for name, value in self._hidden.items():
                    os.environ.setdefault(name, value)
                self._hidden.clear()

    def after_fork(self) -> None:
        """In a child that was forked in between, no other thread is left that would bring them back."""
        self._lock = threading.Lock()
        if self._hidden:
            self._users = 1
            self.end()


_hiding: Final = _Hiding()
os.register_at_fork(after_in_child=_hiding.after_fork)


def is_embedded(parameters: Mapping[str, Any]) -> bool:
    """Whether a connection string leads to an embedded server: its socket directory is one of ours."""
    host = str(parameters.get("host") or "")
    return host.startswith("/") and Path(host, _SUPERVISOR).is_socket()


@contextlib.contextmanager
def hidden(parameters: Mapping[str, Any]) -> Iterator[None]:
    """Connect in here: where it leads to an embedded server, nothing in the environment is in the way."""
    if not any(name in os.environ for name in _NOT_IN_STRINGS) or not is_embedded(parameters):
        yield
        return
    _hiding.begin()
    try:
        yield
    finally:
        _hiding.end()


def connect(dsn: str, **options: Any) -> psycopg.Connection[Any]:
    """``psycopg.connect``, for a string that may lead to an embedded server."""
    import psycopg

    with hidden(psycopg.conninfo.conninfo_to_dict(dsn)):
        return psycopg.connect(dsn, **options)
