"""Exports that are killed at any moment: what has the final name is whole, or what was there before."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from database_server import DatabaseServer
from streaming_flows import several

ITEMS = 40_000
OLD = b"of yesterday"


@pytest.fixture(scope="module")
def exported(server: DatabaseServer, template: str) -> Iterator[tuple[str, str]]:
    """A database, and a run in it of a map of many items."""
    with server.database(template) as dsn:
        run_id = "00000000-0000-4000-8000-0000000000aa"
        items = several.imap(range(ITEMS), executor="inline", dsn=dsn, run_id=run_id, step="twice", params={})
        assert sum(1 for _ in items) == ITEMS
        yield dsn, run_id


def rows_of(path: Path) -> list[int]:
    """What a whole file holds; raises if it is none."""
    if path.suffix == ".parquet":
        return [int(value) for value in pq.read_table(path).column("value").to_pylist()]
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    if ".csv" in path.name:
        heading, *rows = csv.reader(text.splitlines())
        assert heading == ["value"]
        return [int(row[0]) for row in rows]
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def export(dsn: str, run_id: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pgflow_mp", "results", run_id, "twice", "--dsn", dsn, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ})


def kill_at_random(exported: tuple[str, str], folder: Path, names: list[str], kills: int) -> None:
    dsn, run_id = exported
    rolls = random.Random(kills)
    cut = 0
    took: dict[str, float] = {}
    for number in range(kills):
        name = names[number % len(names)]
        path = folder / name
        if name not in took:
            for _ in range(2):  # the first one of its kind takes longer
                began = time.monotonic()
                process = export(dsn, run_id, "-o", str(path))
                process.communicate(timeout=60)
                took[name] = time.monotonic() - began
            assert rows_of(path) == [2 * n for n in range(ITEMS)]
        path.write_bytes(OLD)
        process = export(dsn, run_id, "-o", str(path))
        time.sleep(took[name] * rolls.uniform(0.35, 0.8))  # else not begun, or done
        process.kill()
        process.communicate(timeout=60)
        if path.read_bytes() == OLD:
            cut += 1
        else:
            assert rows_of(path) == [2 * n for n in range(ITEMS)]
        assert [other.name for other in folder.iterdir() if not other.name.startswith(".")] == [name]
        for other in folder.iterdir():
            other.unlink()
    assert cut > kills // 3


def test_nothing_half_written_has_the_final_name(exported: tuple[str, str], tmp_path: Path) -> None:
    kill_at_random(exported, tmp_path, ["x.csv.gz"], 3)


@pytest.mark.slow
def test_nothing_half_written_has_the_final_name_at_ten_moments(
    exported: tuple[str, str], tmp_path: Path
) -> None:
    kill_at_random(exported, tmp_path, ["x.parquet", "x.csv", "x.jsonl.gz", "x.jsonl", "x.csv.gz"], 10)


@pytest.mark.slow
def test_nothing_half_copied_is_in_a_table(exported: tuple[str, str]) -> None:
    dsn, run_id = exported
    rolls = random.Random(5)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for number in range(10):
            began = time.monotonic()
            process = export(dsn, run_id, "--into", f"#whole{number}")
            process.communicate(timeout=60)
            took = time.monotonic() - began
            assert conn.execute(f"select count(*) from whole{number}".encode()).fetchone() == (ITEMS,)
            process = export(dsn, run_id, "--into", f"#cut{number}")
            time.sleep(took * rolls.uniform(0.4, 0.95))
            process.kill()
            process.communicate(timeout=60)
            deadline = time.monotonic() + 20  # until the server has noticed
            while conn.execute(
                "select 1 from pg_stat_activity where query ilike 'copy%' and pid <> pg_backend_pid()"
            ).fetchone():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            found = conn.execute("select to_regclass(%s)::text", (f"cut{number}",)).fetchone()
            if found != (None,):
                assert conn.execute(f"select count(*) from cut{number}".encode()).fetchone() == (ITEMS,)
