"""python -m pgflow_mp bench, as one types it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psycopg
import pytest
import warm_python
from database_server import DatabaseServer

from pgflow_mp.bench.peers import MODULES
from pgflow_mp.bench.suites import SUITES, side_by_side


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm_python.said("pgflow_mp", "bench", *arguments, timeout=600)


@pytest.mark.slow
def test_a_suite_prints_its_bar_and_writes_figures_and_page(server: DatabaseServer, tmp_path: Path) -> None:
    figures, page = tmp_path / "b.json", tmp_path / "b.html"
    done = bench(
        "overhead",
        "--quick",
        "--storage",
        "tasks",
        "--dsn",
        server.dsn,
        "--json",
        str(figures),
        "--html",
        str(page),
    )
    assert done.returncode == 0, done.stderr
    assert "parent CPU per item" in done.stdout
    document = json.loads(figures.read_text())
    assert document["environment"]["postgresql"]["fsync"] == "off"
    assert {"cpu", "cores", "load_average", "packages", "during"} <= set(document["environment"])
    (suite,) = document["suites"]
    assert suite["name"] == "overhead"
    assert suite["bars"][0]["holds"] in (True, False)
    assert len(suite["samples"]["tasks"]["parent"]) == 3
    assert page.read_text().startswith("<!doctype html>")
    with psycopg.connect(server.dsn) as conn:
        left = conn.execute("select datname from pg_database where datname like 'pgflow_bench_%'").fetchall()
    assert left == [], "scratch databases are dropped"


def test_an_unknown_suite_is_refused_with_the_list_of_suites() -> None:
    done = bench("speed")
    assert done.returncode == 2
    assert 'no suite "speed"' in done.stderr
    assert "scaling" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--storage", "rows"], "rows"),
        (["--items", "10000001"], "more than the 10000000"),
        (["--items", "0"], "0"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(arguments: list[str], said: str) -> None:
    done = bench("noop", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_help_names_every_suite() -> None:
    text = bench("--help").stdout
    assert [name for name in SUITES if name not in text] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_peer_tells_what_it_is_without_being_installed(name: str) -> None:
    peer = side_by_side._load(name)
    assert peer.variants
    assert peer.lacks
    assert set(peer.slow) <= set(peer.variants)


def test_a_peer_that_is_not_installed_is_skipped_with_the_reason() -> None:
    peer = side_by_side._load("celery_redis")
    if missing := [name for name in peer.packages if not _installed(name)]:
        assert side_by_side._missing(peer, "/socket") == f"{', '.join(missing)} is not installed"
    else:
        assert side_by_side._missing(peer, "") == "there is no redis-server"


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
