"""Runs that are named by a key: started once, gone on with, and refused where the input is another."""

from __future__ import annotations

import gzip
import json

import psycopg
import pytest
from cli_harness import Cli, assert_one_screen, finish

from pgflow_mp.db.run_keys import check_key
from pgflow_mp.errors import InputError

FLOW = """
import os

from pgflow_mp import Flow

keyed = Flow("keyed", max_attempts=1)


@keyed.map
def check(n: int) -> int:
    if os.path.exists("broken"):
        raise ValueError("broken")
    with open("log", "a") as log:
        log.write(f"{n}\\n")
    return 2 * n


rows = Flow("rows")


@rows.map
def take(row: dict[str, int]) -> int:
    return check(row["n"])


plain = Flow("plain")


@plain.step
def double(given: dict[str, int]) -> int:
    return check(given.get("n", 1))
"""
ONE = ("--workers", "1", "--output", "-")


@pytest.fixture
def cli(cli: Cli) -> Cli:
    (cli.cwd / "flows.py").write_text(FLOW)
    return cli


def counts(cli: Cli) -> list[int]:
    """Runs, keys, loads and pages that were loaded."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        row = conn.execute(
            "select (select count(*) from pgflow.runs), (select count(*) from pgflow.run_keys), "
            "(select count(*) from pgflow.loads), count(*) from pgflow.pages where step_slug = ''"
        ).fetchone()
    assert row is not None
    return [*row]


def done(cli: Cli) -> list[str]:
    return (cli.cwd / "log").read_text().split()


def test_the_same_key_and_items_are_computed_once_and_others_refused(cli: Cli) -> None:
    (cli.cwd / "x.csv").write_text("n\n4\n")
    (cli.cwd / "y.csv.gz").write_bytes(gzip.compress(b"n\n4\n"))
    named = ("flows.py:rows", "--key", "my run 1", "--input")
    first, again = (cli("run", *named, name, *ONE) for name in ("x.csv", "y.csv.gz"))
    assert (first.out, again.out) == ('{"take": [8]}\n',) * 2
    assert done(cli) == ["4"]
    (cli.cwd / "x.csv").write_text("n\n5\n")
    told = ['has the key "my run 1", and was started with another input', "Give another key"]
    assert_one_screen(cli("run", *named, "x.csv"), 2, *told)
    assert_one_screen(cli("start", *named, '[{"n": 5}]'), 2, *told)
    assert counts(cli) == [1, 1, 1, 1]
    read = cli("run", "flows.py:rows", "--key", "my run 1", "--json").json  # nothing to compare
    assert (read["status"], read["key"]) == ("completed", "my run 1")
    assert cli("status", read["run_id"], "--json").json["key"] == "my run 1"
    assert [run["key"] for run in cli("status", "--json").json] == ["my run 1"]
    assert "my run 1" in cli("status").out
    assert "key my run 1" in cli("status", read["run_id"]).out


def test_a_failed_run_is_tried_again_by_run_and_left_alone_by_start(cli: Cli) -> None:
    (cli.cwd / "broken").touch()
    command = ("flows.py:keyed", "--input", "[1, 2]", "--key", "k")
    assert cli("run", *command, *ONE).code == 1
    started = cli("start", *command)
    assert started.code == 0
    assert 'the key "k" has this run already; it is failed. Try what failed again: ' in started.err
    assert started.out.strip() in started.err
    (cli.cwd / "broken").unlink()
    assert counts(cli)[:2] == [1, 1]
    again = cli("run", *command, *ONE)
    assert json.loads(again.out) == {"check": [2, 4]}
    assert f"resuming run {started.out.strip()}" in again.err


@pytest.mark.slow
def test_a_run_that_start_has_begun_is_gone_on_with(cli: Cli) -> None:
    begun = cli("start", "flows.py:keyed", "--input", "[7]", "--key", "k", "--json").json
    assert (begun["is_new"], begun["key"], begun["status"]) == (True, "k", "started")
    assert json.loads(cli("run", "flows.py:keyed", "--key", "k", *ONE).out) == {"check": [14]}
    other = cli("start", "keyed", "--input", "[7]", "--key", "k", "--json").json  # by its slug
    assert other["run_id"] == begun["run_id"]
    assert counts(cli)[:2] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True])
def test_two_who_start_at_once_get_one_run(cli: Cli, loaded: bool) -> None:
    assert cli("start", "flows.py:keyed", "--input", "[]").code == 0  # the flow is there
    (cli.cwd / "x.jsonl").write_text("".join(f"{n}\n" for n in range(1, 4)))
    verbs = ("start", "run", "start")
    how = ("--on-bad-line", "skip") if loaded else ()  # by lines, as one that is long
    options = ("flows.py:keyed", "--input", "x.jsonl", *how, "--key", "k", "--json")
    ended = [finish(process, 60) for process in [cli.start(verb, *options) for verb in verbs]]
    assert [one.code for one in ended] == [0, 0, 0], ended
    assert len({one.json["run_id"] for one in ended}) == 1
    assert sum(one.json.get("is_new", False) for one in ended) <= 1
    assert counts(cli)[:3] == [2, 1, int(loaded)]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "cannot have 0 characters"),
        ("x" * 201, "cannot have 201 characters"),
        (" a", "begins or ends with white space"),
        ("a\nb", "has the character '\\n'"),
        ("a\u202eb", "has the character '\\u202e'"),
    ],
)
def test_what_can_be_no_key(key: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        check_key(key)
    assert told in str(caught.value)
    assert "1 to 200 printable characters" in caught.value.hint


def test_keys_are_refused_before_there_is_a_database(bare_cli: Cli) -> None:
    (bare_cli.cwd / "flows.py").write_text(FLOW)
    for options, told in (
        (["--input", "[1]", "--key", ""], "cannot have 0 characters"),
        (["--key", "k"], 'Flow "keyed" needs an input'),
        (["--key", "k", "--resume", "1"], "--resume and --key cannot be used together"),
    ):
        assert_one_screen(bare_cli("run", "flows.py:keyed", *options), 2, told)
    assert not [*bare_cli.cwd.rglob("postgres-*")]


@pytest.mark.slow
def test_a_key_without_a_run_needs_the_input(cli: Cli) -> None:
    assert_one_screen(cli("run", "flows.py:keyed", "--key", "k"), 2, 'Flow "keyed" needs an input')
    assert json.loads(cli("run", "flows.py:plain", "--key", "k", *ONE).out) == {"double": 2}
    resumed = cli("run", "flows.py:keyed", "--resume", "none", PGFLOW_KEY="k")  # what is said here wins
    assert_one_screen(resumed, 2, "There is no run none")
