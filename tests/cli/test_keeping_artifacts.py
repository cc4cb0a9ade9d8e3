"""Artifacts of runs: where they are kept, who removes them, and what is said where nobody can."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_harness import Cli, assert_one_screen

FLOWS = Path(__file__).parents[1] / "artifact_flows.py"
PICTURES = f"{FLOWS}:pictures"


def kept(place: Path) -> list[str]:
    return sorted(path.name for path in place.rglob("*") if path.is_file())


def prune(cli: Cli, *more: str) -> Any:
    return cli("prune", "--keep", "0s", *more)


@pytest.mark.parametrize("slug", ["pictures", pytest.param("in_tasks", marks=pytest.mark.slow)])
def test_they_are_passed_on_and_go_with_their_run(cli: Cli, tmp_path: Path, slug: str) -> None:
    place, flow = tmp_path / "place", f"{FLOWS}:{slug}"
    done = cli("run", flow, "--input", "[1, 2, 2]", "--output", "-", "--artifacts", str(place), "-w", "2")
    assert (done.code, json.loads(done.out)) == (0, {"total": 40}), done.err
    assert kept(place) == ["copy.txt"] * 2 + ["notes.json"] + ["picture.bin"] * 2
    other = cli("run", flow, "--input", "[1]", "--json", PGFLOW_ARTIFACTS=str(place))
    assert (other.code, len(kept(place))) == (0, 8), other.err
    assert cli("prune", "--keep", "1d").out == "Removed 0 runs.\n"
    assert len(kept(place)) == 8
    gone = prune(cli, "--flow", slug, "--json")
    assert gone.json["runs"] == 2
    assert gone.json["artifacts"] == 8
    assert kept(place) == []
    assert [path.name for path in place.glob("*/*/*")] == []


@pytest.mark.slow
def test_what_a_killed_process_left_goes_with_the_run_too(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "place"
    done = cli("run", f"{FLOWS}:unsteady", "--input", "[1]", "--artifacts", str(place), "--json")
    assert done.code == 0, done.err
    names = kept(place)
    assert len(names) == 2
    assert [name for name in names if not name.startswith(".")] == ["half.bin"]
    assert "Removed 2 artifacts of 1 run (8 bytes).\n" in prune(cli).out
    assert kept(place) == []


@pytest.mark.slow
def test_a_run_that_was_deleted_otherwise_is_found_by_the_next_pruning(cli: Cli, tmp_path: Path) -> None:
    assert cli.dsn is not None
    place = tmp_path / "place"
    for _ in range(2):
        assert cli("run", PICTURES, "--input", "[1]", "--artifacts", str(place)).code == 0
    (base,) = place.glob("*/pictures")
    (one, _) = sorted(base.iterdir())
    stranger = base.parent.parent / "22222222-2222-4222-8222-222222222222" / "pictures" / one.name
    shutil.copytree(one, stranger)
    with psycopg.connect(cli.dsn) as conn:
        conn.execute("delete from pgflow.step_tasks where run_id = %s", (one.name,))
        conn.execute("delete from pgflow.step_states where run_id = %s", (one.name,))
        conn.execute("delete from pgflow.runs where run_id = %s", (one.name,))
    assert "of 1 run (" in cli("prune", "--keep", "1d").out
    assert not one.exists()
    assert len(list(base.iterdir())) == 1
    assert stranger.exists()
    with psycopg.connect(cli.dsn) as conn:
        conn.execute("select pgflow.delete_flow_and_data('pictures')")
    assert "of 1 run (" in cli("prune", "--keep", "1d").out
    assert list(base.iterdir()) == []


def test_a_place_that_cannot_be_reached_is_named(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert cli("run", PICTURES, "--input", "[1]", "--artifacts", str(place)).code == 0
    place.rename(tmp_path / "moved")
    done = prune(cli, "--json")
    assert (done.code, done.json["runs"], done.json["unreachable"]) == (0, 1, [str(place)])
    told = " ".join(done.err.split())
    told = " ".join(done.err.split())
    assert f"artifacts of removed runs stay in {place}: it is not on this machine" in told
    (tmp_path / "moved").rename(place)
    assert "of 1 run (" in prune(cli).out


def test_a_flow_without_a_place_is_refused_before_anything_runs(cli: Cli, tmp_path: Path) -> None:
    text = 'Flow "pictures" makes artifacts, and there is no place for them'
    assert_one_screen(cli("run", PICTURES, "--input", "[1]"), 2, text, "--artifacts")
    (tmp_path / "file").write_text("")
    refused = cli("run", PICTURES, "--input", "[1]", "--artifacts", str(tmp_path / "file" / "x"))
    assert_one_screen(refused, 2, "Artifacts cannot be written to", "Not a directory")


@pytest.mark.slow
def test_a_flow_has_a_place_of_its_own_over_which_the_workers_wins(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        f"from pgflow_mp import Artifact, Flow\nflow = Flow('own', artifacts={str(tmp_path / 'mine')!r})\n"
        "@flow.map\ndef make(n: int):\n    return Artifact.from_bytes(b'x', 'x.txt')\n"
    )
    assert cli("run", "own.py", "--input", "[1]").code == 0
    assert kept(tmp_path / "mine") == ["x.txt"]
    done = cli("run", "own.py", "--input", "[1]", "--artifacts", str(tmp_path / "theirs"))
    assert done.code == 0
    assert kept(tmp_path / "theirs") == ["x.txt"]
    assert "of 2 runs (" in prune(cli).out


@pytest.mark.slow
def test_the_embedded_server_keeps_them_beside_its_data(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    assert cli("run", PICTURES, "--input", "[1]", "--data-dir", "data").code == 0
    assert len(kept(tmp_path / "data" / "artifacts")) == 3
    assert "of 1 run (" in prune(cli, "--data-dir", "data").out
    assert kept(tmp_path / "data" / "artifacts") == []


@pytest.mark.slow
def test_a_worker_that_prunes_removes_them(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert cli("run", PICTURES, "--input", "[1]", "--artifacts", str(place)).code == 0
    worker = cli.start(PICTURES, "--keep", "0s", "--artifacts", str(place))
    deadline = time.monotonic() + 30
    while kept(place):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker.terminate()
    worker.communicate(timeout=30)
