"""Standard streams that are closed, full or broken decide about nothing but what is shown."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import Cli, Done, environment

from pgflow_mp import streams

ALL_CLOSED, ALL_FULL = "<&- >&- 2>&-", ">/dev/full 2>/dev/full"


def shell(cli: Cli, *lines: tuple[str, str]) -> list[Done]:
    """Run commands of ours with redirections, all at once."""
    started = [
        subprocess.Popen(
            f"{shlex.join(cli.command(*shlex.split(command)))} {redirections}",
            shell=True,
            cwd=cli.cwd,
            env=environment(cli.cwd),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, redirections in lines
    ]
    cli.started += started
    done = [(process, *process.communicate(timeout=60)) for process in started]
    return [Done(process.returncode, out, err) for process, out, err in done]


@pytest.fixture
def prints(cli: Cli) -> Cli:
    """A flow whose module and items print, and are told so by their processes."""
    (cli.cwd / "prints.py").write_text(
        "import sys\nfrom pgflow_mp import Flow\nflow = Flow('prints', max_attempts=1)\n"
        "print('loaded', flush=True)\n"
        "@flow.map\ndef a(x: int) -> int:\n"
        "    print('item', x, flush=True)\n    print('item', x, file=sys.stderr, flush=True)\n    return x\n"
    )
    return cli


def test_a_run_is_done_and_its_status_told_whatever_becomes_of_what_it_prints(prints: Cli) -> None:
    run = "run prints.py --input [1,2] --workers 1 --output {}.json"
    done = shell(
        prints,
        (run.format("closed"), ALL_CLOSED),
        (run.format("full"), ALL_FULL),
    )
    assert [found.code for found in done] == [0, 0], done
    for name in ("closed", "full"):
        assert json.loads((prints.cwd / f"{name}.json").read_text()) == {"a": [1, 2]}


def test_what_was_asked_for_and_cannot_be_written_is_an_error(prints: Cli) -> None:
    refused, full, status, start, closed, head = shell(
        prints,
        ("run prints.py --input [1] --workers 1 --output -", ">&-"),
        ("run prints.py --input [1] --workers 1 --output -", ">/dev/full"),
        ("status", ">/dev/full"),
        ("start prints.py --input [1]", ">&-"),
        ("run prints.py --input -", "<&-"),
        ("install --print", "| head -1"),
    )
    assert (refused.code, "standard output, which is closed" in refused.err) == (2, True), refused
    assert full.code == 1
    assert "cannot be written: No space left on device" in full.err
    assert "--output FILE" in " ".join(full.err.split())
    assert (status.code, "No space left" in status.err) == (1, True), status
    assert (start.code, "was started all the same" in start.err) == (1, True), start
    assert (closed.code, "standard input, which is closed" in closed.err) == (2, True), closed
    assert (head.err, len(head.out.splitlines())) == ("", 1)  # a reader that has enough is no error


def test_what_other_commands_are_asked_for_is_an_error_where_it_is_lost(cli: Cli) -> None:
    full, closed = (">/dev/full", "No space left on device"), (">&-", "it is closed")
    for by, *lines in (
        (cli, ("doctor", full), ("db dsn", closed), ("db size", full), ("limits", closed)),
        (Cli(cli.cwd), ("completion bash", full), ("help", closed)),
    ):
        found = shell(by, *((command, where) for command, (where, _) in lines))
        for (command, (_, told)), done in zip(lines, found, strict=True):
            assert (done.code, f"cannot be written: {told}" in done.err) == (1, True), (command, done)


def test_results_and_retries_with_streams_that_take_nothing(cli: Cli) -> None:
    (cli.cwd / "wide.py").write_text(
        "from pgflow_mp import Flow\nflow = Flow('wide')\n"
        "@flow.map\ndef a(x: int) -> str:\n    return 'x' * 200\n"
    )
    items = json.dumps([1] * 1200)
    run_id = cli("run", "wide.py", "--input", items, "--workers", "1", "--json").json["run_id"]
    head, table, unread = shell(
        cli,
        (f"results {run_id} a --fields index,output", "| head -1"),
        (f"results {run_id} a --into '#wide'", ">&-"),
        (f"retry {run_id} wide.py --dry-run", ">/dev/full"),
    )
    assert (head.err, len(head.out.splitlines())) == ("", 1)
    assert (table.code, "1,200 items of a in table wide" in table.err) == (0, True), table
    assert (unread.code, "No space left" in unread.err) == (1, True), unread


def test_what_is_opened_gets_none_of_the_numbers_of_standard_streams(tmp_path: Path) -> None:
    code = (
        "import socket, subprocess, sys\nfrom pgflow_mp import streams\nstreams.guard()\n"
        "fd = socket.socket().fileno()\n"
        "child = subprocess.run([sys.executable, '-c', 'import os; [os.fstat(n) for n in (0, 1, 2)]'])\n"
        "open('told', 'w').write(f'{fd > 2} {child.returncode}')\n"
    )
    subprocess.run(
        f'"{sys.executable}" -c "$CODE" {ALL_CLOSED}',
        shell=True,
        cwd=tmp_path,
        env={"CODE": code},
        check=True,
    )
    assert (tmp_path / "told").read_text() == "True 0"


def test_a_forgiving_stream_writes_all_or_goes_on_without(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        stream = streams.forgiving(file.fileno(), encoding="ascii", reports=97)
        print("aä" * 100_000, file=stream, flush=True)
        assert (tmp_path / "file").read_text() == "a\\xe4" * 100_000 + "\n"
        assert streams.failure(97) is None
    with open("/dev/full", "w") as full:
        stream = streams.forgiving(full.fileno(), reports=98)
        print("lost", file=stream, flush=True)
        stream.close()
        lost = streams.failure(98)
        assert lost is not None
        assert lost.strerror == "No space left on device"


def test_what_a_module_prints_when_it_is_imported_is_no_output(prints: Cli) -> None:
    """compile prints SQL, doctor and replay print JSON: what the module prints goes to standard error."""
    done = prints("run", "prints.py", "--input", "[1]", "--workers", "1", "--json")
    run_id = done.json["run_id"]
    compiled = prints_without_database(prints)("compile", "prints.py")
    assert compiled.out.startswith("SELECT pgflow.create_flow('prints'"), compiled.out
    assert "loaded" in compiled.err
    assert prints("doctor", "prints.py", "--json").json
    assert prints("replay", run_id, "a", "0", "prints.py", "--json").json["output"] == 1


def prints_without_database(cli: Cli) -> Cli:
    return Cli(cli.cwd)


def test_standard_output_by_its_name_in_the_file_system_is_standard_output(prints: Cli) -> None:
    """Opened as a file it would be replaced, or be standard error while a run is worked on."""
    run = "run prints.py --input [3] --workers 1 --progress off --output {}"
    run_id = prints("run", "prints.py", "--input", "[1]", "--workers", "1", "--json").json["run_id"]
    lines = [
        (run.format("/dev/stdout"), "> run.txt"),
        (f"results {run_id} a --output /dev/fd/1 --format jsonl", "> results.txt"),
    ]
    compiling = ("compile prints.py --output /proc/self/fd/1", "> compiled.txt")
    done = [*shell(prints, *lines), *shell(prints_without_database(prints), compiling)]
    assert [found.code for found in done] == [0, 0, 0], done
    assert (prints.cwd / "run.txt").read_text().startswith('{"a": [3]}')
    assert (prints.cwd / "results.txt").read_text() == "1\n"
    assert (prints.cwd / "compiled.txt").read_text().startswith("SELECT pgflow.create_flow")
    assert Path("/dev/stdout").is_symlink()
