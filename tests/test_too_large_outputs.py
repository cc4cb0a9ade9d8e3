"""A map whose outputs do not fit one JSON document (256 MB): whole wherever they are used.

The limit is made small here, where the database keeps it.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli
from database_roles import role_with
from worker_harness import adapted, start

import pgflow_mp
from pgflow_mp import Flow
from pgflow_mp.cli.asked import Asked, write_asked
from pgflow_mp.client import Client
from pgflow_mp.db.reads import documents

SOURCE = """
from dataclasses import dataclass
from pgflow_mp import Flow

@dataclass
class Square:
    of: int

solo = Flow("solo", max_attempts=1)

@solo.map(tolerate=1)
def sa(x: int) -> Square:
    if x == 2:
        raise ValueError(x)
    return Square(x * x)

@solo.step
def one(x: list[int]) -> int:
    return len(x)

total = Flow("total", max_attempts=1)

@total.map
def parts(x: int) -> int:
    return x

@total.step(depends_on=[parts])
def by_name(parts: list[int] | None = None) -> str:
    return repr(parts)

@total.step(depends_on=[parts])
def by_mapping(outputs: dict[str, object]) -> str:
    return repr(outputs)

@total.step(depends_on=[parts])
def counts() -> str:
    return "needs none of them"
"""


@pytest.fixture
def small_dsn(dsn: str) -> str:
    """A database in which no map's outputs fit one document."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "create or replace function pgflow._largest_json() returns bigint language sql immutable "
            "set search_path = pg_catalog, pg_temp as 'select 20::bigint'"
        )
    return dsn


@dataclass
class Square:
    of: int


squares = Flow("squares", max_attempts=1)


@squares.map(tolerate=1)
def sa(x: int) -> Square:
    if x == 2:
        raise ValueError(x)
    return Square(x * x)


sums = Flow("sums", max_attempts=1)


@sums.map
def parts(x: int) -> int:
    return x


@sums.step(depends_on=[parts])
def total(parts: list[int] | None = None) -> int:
    return -1 if parts is None else sum(parts)


texts = Flow("texts")


@texts.map
def text(size: int) -> str:
    return "x" * size


WHOLE = {"sa": [{"of": 1}, None, {"of": 9}], "one": 3}


def test_what_a_run_gives_is_whole_wherever_it_is_asked_for(small_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(SOURCE)
    cli = Cli(tmp_path, small_dsn)
    done = cli("run", "flows.py:solo", "--input", "[1, 2, 3]", "--output", "out.json", "--workers", "1")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out.json").read_text()) == WHOLE
    with psycopg.connect(small_dsn) as conn:
        ((run_id,),) = conn.execute("select run_id::text from pgflow.runs").fetchall()
    shown = cli("run", "flows.py:solo", "--resume", run_id)
    assert shown.code == 0, shown.err
    assert "too large to be shown" in shown.out
    assert "null" not in shown.out
    assert f"--resume {run_id}" in shown.out
    with role_with(small_dsn, "starter") as starter:
        for dsn in (small_dsn, starter):
            with Client(dsn) as client:
                run = client.get_run(run_id)
                assert run is not None
                assert run.output == WHOLE
                assert run.steps["sa"].output == WHOLE["sa"]
                assert [*run.results("sa")] == [{"of": 1}, {"of": 9}]


@pytest.mark.slow
def test_lines_keep_the_places_of_failed_items(small_dsn: str, tmp_path: Path) -> None:
    source = SOURCE.replace("@solo.step\ndef one(x: list[int]) -> int:\n    return len(x)\n", "")
    (tmp_path / "flows.py").write_text(source)
    cli = Cli(tmp_path, small_dsn)
    done = cli("run", "flows.py:solo", "--input", "[1, 2, 3]", "--output", "out.jsonl", "--workers", "1")
    assert done.code == 0, done.err
    assert (tmp_path / "out.jsonl").read_text() == '{"of": 1}\nnull\n{"of": 9}\n'


def test_a_step_receives_them_by_name_or_all_of_them(small_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(SOURCE)
    cli = Cli(tmp_path, small_dsn)
    done = cli("run", "flows.py:total", "--input", "[1, 2]", "--output", "-", "--workers", "1")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "by_name": "[1, 2]",
        "by_mapping": "{'parts': [1, 2]}",
        "counts": "needs none of them",
    }
    with psycopg.connect(small_dsn) as conn:
        ((run_id,),) = conn.execute("select run_id::text from pgflow.runs").fetchall()
    for step, output in (("by_name", "[1, 2]"), ("by_mapping", "{'parts': [1, 2]}")):
        again = cli("replay", run_id, step, "0", "flows.py:total", "--json")
        assert again.code == 0, again.err
        assert json.loads(again.out)["output"] == output


def test_run_in_python_gives_them_whole_and_typed(small_dsn: str) -> None:
    assert pgflow_mp.run(squares, [1, 2, 3], dsn=small_dsn, workers=1) == {"sa": [Square(1), None, Square(9)]}


def test_run_in_python_lets_a_step_receive_them(small_dsn: str) -> None:
    assert pgflow_mp.run(sums, [1, 2], dsn=small_dsn, workers=1) == {"total": 3}
    for executor in ("inline", ThreadPoolExecutor(2)):
        assert pgflow_mp.run(sums, [1, 2], dsn=small_dsn, executor=executor) == {"total": 3}


def test_they_are_read_item_by_item(small_dsn: str) -> None:
    run_id = str(uuid.uuid4())
    pgflow_mp.run(texts, [2_000_000] * 10, dsn=small_dsn, executor="inline", run_id=run_id)
    with Client(small_dsn) as client:
        run = client.run(run_id)
        tracemalloc.start()
        try:
            found = run.result(output=text)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert [len(each) for each in found] == [2_000_000] * 10
    assert most < 30_000_000  # 20 of them are the answer


@pytest.mark.slow
def test_outputs_past_the_real_limit_are_written_in_little_memory(dsn: str, tmp_path: Path) -> None:
    run_id = start(dsn, "mischief", [["echo", 0]] * 10)
    with adapted(dsn) as conn:
        conn.execute(
            "update pgflow.step_tasks set status = 'completed', completed_at = now(), started_at = now(), "
            "output = to_jsonb(repeat('x', 30000000)) where task_index < 9"
        )
        conn.execute("update pgflow.step_states set remaining_tasks = 1")
        conn.execute(
            "update pgflow.step_tasks set status = 'started', started_at = now() where task_index = 9"
        )
        conn.execute("select pgflow.complete_task(%s, 'act', 9, '7')", (run_id,))
        assert [tuple(leaf) for leaf in documents.leaves(conn, run_id)] == [("act", True, False)]
        tracemalloc.start()
        try:
            path = tmp_path / "out.json"
            written = write_asked(conn, run_id, Asked("--output", str(path), "json", None), sys.stdout, "")
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert path.stat().st_size == written > 270_000_000
    assert most < 100_000_000
    with path.open("rb") as file:
        assert file.read(12) == b'{"act": ["xx'
        file.seek(-10, 2)
        assert file.read() == b'xxx", 7]}\n'
