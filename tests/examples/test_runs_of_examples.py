"""The bundled examples, each one run to its end on a real database with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import warm_python
from database_server import DatabaseServer

from pgflow_mp.examples import code_metrics, primes, simple, text_processing, wide
from pgflow_mp.flows.flow import Flow
from pgflow_mp.runner import run

EXAMPLES = ["code_metrics", "primes", "simple", "text_processing", "wide"]
QUICK = ("code_metrics", "simple")
SMALL = {"code_metrics": {"limit": 20}, "primes": {"below": 100_000, "segment": 10_000}}


@pytest.fixture(scope="module")
def place(server: DatabaseServer, template: str) -> Iterator[str]:
    """The connection string of one database with the schema, for all tests here."""
    with server.database(template) as dsn:
        yield dsn


def execute(flow: Flow, given: Any, dsn: str) -> Any:
    """The output of a flow's only leaf, as its handler's return type."""
    (output,) = (run(flow, given, workers=2, dsn=dsn) or {}).values()
    return output


def test_simple_runs_through_its_three_steps(place: str) -> None:
    assert execute(simple.flow, {"value": 21}, place) == "42 + 10 = 52"


def test_text_processing_keeps_the_order_of_a_hundred_lines(place: str) -> None:
    lines = [f"  line   NUMBER {number}" for number in range(100)]
    summary = execute(text_processing.flow, lines, place)
    assert summary.lines == [f"Line Number {number}" for number in range(100)]
    assert summary.words == 300


def test_text_processing_of_no_lines_is_an_empty_summary(place: str) -> None:
    summary = execute(text_processing.flow, [], place)
    assert summary == text_processing.Summary(lines=[], words=0, longest="")


def test_wide_joins_what_its_parallel_steps_found(place: str) -> None:
    report = execute(wide.flow, {"values": [4, 1, 3, 2]}, place)
    assert report.size == wide.Size(count=4, total=10.0, squares=30.0)
    assert (report.center.mean, report.center.median) == (2.5, 2.5)
    assert (report.spread.range, report.spread.middle_half) == (3.0, 1.5)
    assert not report.lopsided


def test_primes_below_a_million_are_counted_right(place: str) -> None:
    verdict = execute(primes.flow, {"below": 1_000_000, "segment": 20_000}, place)
    assert (verdict.primes, verdict.segments) == (78498, 50)


@pytest.mark.slow
def test_code_metrics_of_some_files_equal_those_of_a_plain_loop(place: str) -> None:
    request = code_metrics.Request(limit=40)
    report = execute(code_metrics.flow, {"limit": 40}, place)
    assert report == code_metrics.plain(request)
    assert report.files == 40


def test_code_metrics_records_broken_files_and_completes(place: str, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    report = execute(code_metrics.flow, {"paths": [str(tmp_path)]}, place)
    assert (report.files, report.broken) == (3, 2)
    assert report == code_metrics.plain(code_metrics.Request(paths=[str(tmp_path)]))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in EXAMPLES],
)
def test_an_example_runs_by_name(name: str, place: str, tmp_path: Path) -> None:
    more = ["--input", json.dumps(SMALL[name])] if name in SMALL else []
    done = warm_python.said("pgflow_mp", "run", name, "--dsn", place, "--output", "-", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)


@pytest.mark.slow
def test_code_metrics_of_at_least_1500_real_files_equal_those_of_a_plain_loop(
    place: str, tmp_path: Path
) -> None:
    files = len(code_metrics.list_files(code_metrics.Request()))
    if files < 1500:
        pytest.skip(f"this machine has only {files} Python files")
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "pgflow_mp", "run", "code_metrics", "--dsn", place]
    command += ["--output", str(output)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = msgspec.convert(json.loads(output.read_text())["report"], code_metrics.Report)
    assert report.files == files
    assert report == code_metrics.plain()
