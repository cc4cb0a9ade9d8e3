"""A server for boxes, and databases on it."""

from __future__ import annotations

from collections.abc import Iterator

import boxes
import psycopg
import pytest

from pgflow_mp.db import schema


@pytest.fixture(scope="session")
def site() -> Iterator[boxes.Site]:
    with boxes.site() as found:
        yield found


@pytest.fixture(scope="session")
def site_template(site: boxes.Site) -> str:
    name = site.server.create_database()
    with psycopg.connect(site.server.dsn_of(name), autocommit=True) as conn:
        schema.install(conn)
    return name


@pytest.fixture
def site_dsn(site: boxes.Site, site_template: str) -> Iterator[str]:
    """A fresh database with the schema, as this process reaches it."""
    with site.server.database(site_template) as dsn:
        yield dsn
