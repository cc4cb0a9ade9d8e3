"""The files that a command is asked for: checked before anything starts, written at its end."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from pgflow_mp import streams
from pgflow_mp.cli.converters import output_file
from pgflow_mp.errors import InputError, PgflowError
from pgflow_mp.io.atomic import is_replaced, write_atomically
from pgflow_mp.io.sinks import FORMATS, check_format, compressed, open_sink

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.parser import Parser
    from pgflow_mp.cli.preflight import FlowFacts

CHOOSE: Final = "--output-format"


class Asked(NamedTuple):
    """A file, or ``-`` for standard output. ``step`` is None where it gets the run's output, a document."""

    option: str
    name: str
    format: str
    step: str | None
    is_map: bool = False

    def is_seen_apart(self, results: IO[str]) -> bool:
        """Whether what is told meanwhile does not get among what is written."""
        return self.name != "-" or not results.isatty()


class _Order(Protocol):
    """What of a RunOrder counts here."""

    @property
    def output(self) -> str | None: ...

    @property
    def output_format(self) -> str | None: ...

    @property
    def results(self) -> tuple[tuple[str, str], ...]: ...

    @property
    def follow(self) -> bool: ...


def add_output(parser: Parser, when: str = "") -> None:
    """--output, --output-format and --results; ``when`` is what the help begins with."""
    parser.option(
        "--output",
        "-o",
        env="PGFLOW_OUTPUT",
        convert=output_file,
        metavar="FILE",
        help=f"{when}write the run's output there, as its ending says: .json, or, the results of the last "
        "map, .jsonl (one a line), .csv or .parquet (one a row); - is standard output",
    )
    parser.option(
        CHOOSE,
        env="PGFLOW_OUTPUT_FORMAT",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"{when}how --output is to be written, whatever its ending: {', '.join(FORMATS)}",
    )
    parser.option(
        "--results",
        env="PGFLOW_RESULTS",
        metavar="STEP=FILE",
        action="append",
        convert=_step_and_file,
        help=f"{when}write the results of a step there, too, as the ending of the file says; several times",
    )
    parser.option(
        "--follow",
        env="PGFLOW_FOLLOW",
        flag=True,
        default=False,
        help=f"{when}write lines of a map's results, .jsonl, as items end, and in that order",
    )


def _step_and_file(text: str) -> tuple[str, str]:
    step, equals, name = text.partition("=")
    if not (step and equals and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not a STEP=FILE, as in count=counts.csv")
    return step, output_file(name)


def check_asked(order: _Order, flow: FlowFacts) -> list[Asked]:
    """What a run is asked for. Raises InputError for what could not be written once it has ended."""
    found = [_output(order.output, order.output_format, flow)] if order.output else []
    found += [_results(step, name, flow) for step, name in order.results]
    places = [os.path.realpath(asked.name) for asked in found if asked.name != "-"]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"{place} would be written twice", hint="Give each result a file of its own.")
    if order.follow:
        _check_followed(found)
    return found


def is_followed(asked: Asked) -> bool:
    """Whether items can go there one by one."""
    return asked.is_map and asked.format == "jsonl"


def _check_followed(asked: Iterable[Asked]) -> None:
    """Raise InputError where --follow would make no difference."""
    if not any(map(is_followed, asked)):
        raise InputError(
            "--follow writes the results of a map as items end, a line each, and no lines are asked for",
            hint="Give --results STEP=FILE.jsonl, or --output - --output-format jsonl.",
        )


def _output(name: str, format: str | None, flow: FlowFacts) -> Asked:
    format = check_place("--output", name, format, CHOOSE) or "json"
    if format == "json":
        return Asked("--output", name, format, None)
    leaves = flow.leaves
    if len(leaves) == 1 and leaves[0].is_map:
        return Asked("--output", name, format, leaves[0].slug, True)
    maps = [step.slug for step in flow.steps if step.is_map]
    other = f"; the results of a map are written by --results {maps[-1]}={name}" if maps else ""
    what = "lines" if format == "jsonl" else "rows"
    raise InputError(
        f'--output {name}: flow "{flow.slug}" does not end in one map, whose results could be {what} '
        f"(its last steps: {', '.join(step.slug for step in leaves)})",
        hint=f"Write the whole output as one document: give the file the ending .json{other}.",
    )


def _results(step: str, name: str, flow: FlowFacts) -> Asked:
    known = {outline.slug: outline for outline in flow.steps}
    if step not in known:
        raise InputError(
            f'--results {step}={name}: step "{step}" does not exist in flow "{flow.slug}"',
            hint=f"Its steps are {', '.join(known)}.",
        )
    if name == "-":
        raise InputError(
            f"--results {step}=-: results of a step go to a file",
            hint=f"For example: --results {step}=rows.csv",
        )
    is_map = known[step].is_map
    format = check_place("--results", name, None, "")
    return Asked("--results", name, format or ("jsonl" if is_map else "json"), step, is_map)


def check_place(option: str, name: str, format: str | None, choose: str) -> str | None:
    """The format of a file that can be written, None if nothing tells it. Raises InputError."""
    if name == "-" or Path(name).is_dir():
        check_writable(option, name)
        return format
    found = check_format(name, format, option, choose)
    check_writable(option, name)
    return found


def check_writable(option: str, name: str) -> None:
    """Raise InputError for a file that cannot be written, or standard output (``-``) where it is closed."""
    if name == "-":
        if streams.was_closed(1):
            raise InputError(f"{option} - is standard output, which is closed", hint="Name a file.")
        return
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{option} {path} is a directory", hint="Name a file in it.")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no directory {path.parent}", hint="Create it first.")
    is_device = path.exists() and not path.is_file()  # or a pipe: nothing is made beside it
    places = [place for place in (path, path.parent) if place.exists() and not (is_device and place != path)]
    if not all(os.access(place, os.W_OK) for place in places):
        raise InputError(
            f"{option} {path} cannot be written: permission denied",
            hint="Name a file in a directory where you may write.",
        )


def unwritable(error: OSError, hint: str = "") -> PgflowError:
    """What to say where what a command was asked for cannot be written to standard output."""
    return PgflowError(f"Standard output cannot be written: {error.strerror}", hint=hint)


def write_asked(
    conn: psycopg.Connection[tuple[Any, ...]], run_id: str, asked: Asked, results: IO[str], hint: str
) -> int:
    """Write what a completed run was asked for, page by page; returns the bytes of a file.

    ``results`` is standard output, ``hint`` how it can be had later. Raises PgflowError.
    """
    from pgflow_mp.cli.bars import counted
    from pgflow_mp.db.reads import documents

    shows = asked.is_seen_apart(results)
    if asked.step is None or (asked.format == "json" and not asked.is_map):
        pieces = (
            documents.iter_run_output(conn, run_id)
            if asked.step is None
            else iter([documents.step_output(conn, run_id, asked.step) or b"null", b"\n"])
        )
        with open_target(asked.name, results, hint) as target, open_file(target, hint) as file:
            file.writelines(counted(pieces, None, asked.name, shows=shows))
    else:
        total = _total(conn, run_id, asked.step) if shows and sys.stderr.isatty() else None
        elements = counted(elements_of(conn, run_id, asked), total, asked.step, shows=shows)
        write_elements(asked, elements, results, hint)
    return size_of(asked)


def can_be_written_again(asked: Asked) -> bool:
    """Whether its reader has nothing of it yet where writing has failed half-way."""
    return asked.name != "-" and is_replaced(Path(asked.name))


def size_of(asked: Asked) -> int:
    """The bytes of a file that was written."""
    try:
        return 0 if asked.name == "-" else os.stat(asked.name).st_size
    except OSError:  # somebody has taken it away already
        return 0


def write_elements(asked: Asked, elements: Iterable[bytes], results: IO[str], hint: str) -> int:
    """Write elements in the format that was asked for; how many they were."""
    count = 0
    with open_target(asked.name, results, hint) as target, open_sink(target, asked.format, hint) as sink:
        for element in elements:
            sink.write(element)
            count += 1
    return count


def _total(conn: psycopg.Connection[tuple[Any, ...]], run_id: str, step: str) -> int | None:
    """How many items a step has."""
    from pgflow_mp.db.reads import runs

    view = runs.run_view(conn, run_id)
    return next((row.initial_tasks for row in view[1] if row.step_slug == step), None) if view else None


def elements_of(conn: psycopg.Connection[tuple[Any, ...]], run_id: str, asked: Asked) -> Iterator[bytes]:
    """The results of a map one by one, or the one of another step."""
    from pgflow_mp.db.reads import documents

    assert asked.step is not None  # noqa: S101 - the whole output is a document
    if asked.is_map:
        return documents.iter_map_output(conn, run_id, asked.step)
    return iter([documents.step_output(conn, run_id, asked.step) or b"null"])


@contextlib.contextmanager
def open_target(name: str, results: IO[str], hint: str) -> Iterator[Path | IO[bytes]]:
    """The file of this name, or standard output, ``results``, as a stream of bytes."""
    if name != "-":
        yield Path(name)
        return
    results.flush()
    try:
        with open(results.fileno(), "wb", closefd=False) as file:
            yield file
    except BrokenPipeError:  # its reader wants no more
        raise
    except OSError as error:
        raise unwritable(error, hint) from error


@contextlib.contextmanager
def open_file(target: Path | IO[bytes], hint: str) -> Iterator[IO[bytes]]:
    """What is written to a target, a file as open_sink does it."""
    if not isinstance(target, Path):
        yield target
        return
    with write_atomically(target, hint) as file, compressed(file, target.name) as packed:
        yield packed
