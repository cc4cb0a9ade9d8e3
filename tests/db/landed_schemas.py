"""What former releases installed, as dumps of their schemas."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import psycopg

from pgflow_mp.db import queue

Connection = psycopg.Connection[Any]
DUMPS = Path(__file__).parent / "landed"
LANDED = sorted(file.name.partition(".")[0] for file in DUMPS.glob("*.sql.gz"))
VERSION_TABLE = """
create table pgflow.schema_version (version int primary key, package_version text not null,
  functions_digest text not null, applied_at timestamptz not null default now());
insert into pgflow.schema_version select v, '0.0.0', 'old' from generate_series(1, %s) v;
"""


def land(conn: Connection, version: str = "0002") -> None:
    """Install what a former release installed."""
    queue.install(conn)
    conn.execute(gzip.decompress((DUMPS / f"{version}.sql.gz").read_bytes()))
    conn.execute((VERSION_TABLE % int(version)).encode())
