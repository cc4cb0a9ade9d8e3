"""Items are loaded in pages of some 64 kB, whatever the batches they come in, and are gone if that fails."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pgflow_mp.db import engine, loads, wire
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.errors import FlowNotFound, InputError


class Given(NamedTuple):
    elements: list[bytes]


def batches(sizes: list[int], length: int) -> Iterator[Given]:
    number = 0
    for size in sizes:
        yield Given([json.dumps([n, "x" * length]).encode() for n in range(number, number + size)])
        number += size


def pages(conn: Connection, run_id: str) -> list[Any]:
    return conn.execute(
        "select first_index, items, length(body::text) from pgflow.pages where run_id = %s order by 1",
        (run_id,),
    ).fetchall()


@pytest.fixture
def known(conn: Connection) -> Connection:
    wire.adapt(conn)
    conn.execute("select pgflow.create_flow('f')")
    conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
    return conn


@pytest.fixture
def keeper(dsn: str) -> Iterator[Keeper]:
    with loads.patient(dsn) as keeper:
        yield keeper


def test_items_larger_than_any_buffer_on_the_way(known: Connection, dsn: str) -> None:
    run_id = str(uuid.uuid4())
    with Keeper(dsn, silence=3, give_up_after=3) as keeper:
        assert loads.load(keeper, "f", batches([1, 1], 12_000_000), run_id) == 2
    assert [length > 12_000_000 for _, _, length in pages(known, run_id)] == [True, True]


@pytest.mark.parametrize(
    ("sizes", "length"), [([1] * 3000, 60), ([30_000], 20), ([0, 5, 0], 3), ([50_000], 0), ([3, 1], 300_000)]
)
def test_pages_are_cut_by_their_size(
    known: Connection, keeper: Keeper, sizes: list[int], length: int
) -> None:
    run_id, told = str(uuid.uuid4()), list[int]()
    count = loads.load(keeper, "f", batches(sizes, length), run_id, progress=told.append)
    assert count == sum(sizes) == told[-1]
    found = pages(known, run_id)
    assert [first for first, _, _ in found] == [
        sum(items for _, items, _ in found[:i]) for i in range(len(found))
    ]
    assert all(size < 150_000 or items == 1 for _, items, size in found)
    assert len(found) <= 2 + sum(size for _, _, size in found) // 30_000
    row = loads.start_loaded_once(known, run_id, b'{"a": 1}', priority=2)
    again = loads.start_loaded_once(known, run_id, b"{}")
    assert (row.run_id, row.status) == (again.run_id, again.status) == (run_id, "started")
    first = known.execute("select body->0->>0 from pgflow.pages where first_index = 0").fetchone()
    assert first is not None


def test_what_goes_wrong_meanwhile_leaves_nothing(known: Connection, keeper: Keeper) -> None:
    def broken() -> Iterator[Given]:
        yield from batches([20_000] * 3, 10)
        raise KeyboardInterrupt

    run_id = str(uuid.uuid4())
    with pytest.raises(KeyboardInterrupt):
        loads.load(keeper, "f", broken(), run_id)
    with pytest.raises(InputError, match="cannot be loaded"):
        loads.load(keeper, "f", iter([Given([b"{]"])]), run_id)
    assert pages(known, run_id) == []
    row = known.execute("select count(*) from pgflow.loads").fetchone()
    assert row == (0,)
    assert engine.get_run(known, run_id) is None


def test_flows_that_cannot_be_loaded(known: Connection, keeper: Keeper) -> None:
    known.execute("select pgflow.create_flow('s')")
    known.execute("select pgflow.add_step('s', 'one')")
    with pytest.raises(InputError, match="has no map over its input"):
        loads.load(keeper, "s", batches([1], 1), str(uuid.uuid4()))
    with pytest.raises(FlowNotFound, match='There is no flow "none"'):
        loads.load(keeper, "none", batches([1], 1), str(uuid.uuid4()))


_MEASURED = """
import resource, sys, uuid
from pgflow_mp.db import loads
from pgflow_mp.io.chosen import Wanted, choose
from pgflow_mp.io.source import ItemSource
keeper = loads.patient(sys.argv[1])
keeper.connection()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = choose(sys.argv[2], Wanted())
assert isinstance(source, ItemSource)
print(loads.load(keeper, "f", source.batches(), str(uuid.uuid4())))
source.close()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.json", "x.csv.gz", "x.parquet"])
def test_memory_does_not_grow_with_the_number_of_items(
    known: Connection, dsn: str, tmp_path: Path, name: str
) -> None:
    lines = ['{"n": %d, "name": "name %d"}' % (n, n) for n in range(1_000_000)]  # noqa: UP031
    if ".csv" in name:
        text = "n,name\n" + "".join(f"{n},name {n}\n" for n in range(1_000_000))
    else:
        text = "[" + ",".join(lines) + "]" if name == "x.json" else "\n".join(lines)
    if name == "x.parquet":
        pa = pytest.importorskip("pyarrow")
        columns = {"n": range(1_000_000), "name": [f"name {n}" for n in range(1_000_000)]}
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), tmp_path / name)
    else:
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    command = [sys.executable, "-c", _MEASURED, dsn, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    items, grown = map(int, done.stdout.split())
    assert items == 1_000_000
    assert grown < (100 if name == "x.parquet" else 30)  # MB; pyarrow itself has 50
