"""Writing a run's output to a file or to standard output: all of it, or nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from pgflow_mp import streams
from pgflow_mp.errors import InputError, PgflowError
from pgflow_mp.io.atomic import write_atomically

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.preflight import FlowFacts

_UNWRITTEN: Final = """
.csv .tsv .psv .parquet .feather .arrow .orc .avro .xls .xlsx .ods .xml .yaml .yml .toml .html .htm .md .pkl
.pickle .npy .npz .h5 .hdf5 .msgpack .cbor .db .sqlite .sqlite3 .duckdb .sql .proto .pb .py .gz .tgz .bz2 .xz
.zst .zstd .lz4 .br .zip .tar .7z .pdf .docx .png .jpg
"""
"""Endings that promise something else than JSON."""
_LINES: Final = (".jsonl", ".ndjson", ".jsonlines")


def check_output(text: str, flow: FlowFacts) -> None:
    """Refuse, before the work, an output that could not be written after it. Raises InputError."""
    if text == "-":
        if streams.was_closed(1):
            raise InputError("--output - is standard output, which is closed", hint="Name a file.")
        return
    path = Path(text)
    if (ending := path.suffix.lower()) in _UNWRITTEN.split():
        raise InputError(
            f"--output {path}: nothing here writes {ending} files; the output of a run is JSON",
            hint="Give the file the ending .json (one document) or .jsonl (the results of the last map, one "
            "a line), and convert that.",
        )
    if path.is_dir():
        raise InputError(f"--output {path} is a directory", hint="Name a file in it.")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: there is no directory {path.parent}", hint="Create it first.")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"--output {path} cannot be written: permission denied")
    if is_lines(text) and not (len(flow.leaves) == 1 and flow.leaves[0].is_map):
        names = ", ".join(step.slug for step in flow.leaves)
        raise InputError(
            f'--output {path}: flow "{flow.slug}" does not end in one map, whose results could be lines '
            f"(its last steps: {names})",
            hint="Write the whole output as one document: give the file the ending .json.",
        )


def unwritable(error: OSError, hint: str = "") -> PgflowError:
    """What to say where what a command was asked for cannot be written to standard output."""
    return PgflowError(f"standard output cannot be written: {error.strerror}", hint=hint)


def is_lines(text: str) -> bool:
    """Whether a file of this name gets one result a line."""
    return Path(text).suffix.lower() in _LINES


@contextlib.contextmanager
def stdout_for_results() -> Iterator[IO[str]]:
    """Standard output for us alone: what handlers print in lanes goes to standard error meanwhile."""
    streams.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with streams.forgiving(saved, encoding=getattr(sys.stdout, "encoding", "utf-8"), reports=1) as own:
            yield own
    finally:
        streams.flush()
        os.dup2(saved, 1)
        os.close(saved)


def write_output(
    conn: psycopg.Connection[tuple[Any, ...]],
    run_id: str,
    text: str,
    leaves: list[tuple[str, bool]],
    results: IO[str],
    resume: str,
) -> int:
    """Write the output of a completed run, page by page; returns the number of bytes.

    ``leaves`` are the last steps and whether each is a map. ``text`` is ``-`` (``results``) or a path; one
    that ends in .jsonl gets the results of the only map among them, one a line. ``resume`` is the command
    that can fetch the output later.
    """
    if text == "-":
        results.flush()
        try:
            with open(results.fileno(), "wb", closefd=False) as file:
                return _write(conn, run_id, file, leaves, False)
        except BrokenPipeError:  # its reader wants no more
            raise
        except OSError as error:
            raise unwritable(error, f"The output stays in the database: {resume} --output FILE") from error
    hint = f"The output stays in the database: {resume} --output FILE"
    with write_atomically(Path(text), hint) as file:
        return _write(conn, run_id, file, leaves, is_lines(text))


def _write(
    conn: psycopg.Connection[tuple[Any, ...]],
    run_id: str,
    file: IO[bytes],
    leaves: list[tuple[str, bool]],
    lines: bool,
) -> int:
    from pgflow_mp.db.reads import documents

    if lines:
        return sum(file.write(item + b"\n") for item in documents.iter_map_output(conn, run_id, leaves[0][0]))
    written = file.write(b"{")
    for number, leaf in enumerate(documents.leaves(conn, run_id)):
        written += file.write(b", " * bool(number) + f'"{leaf.step_slug}": '.encode())
        if not leaf.is_map:
            written += file.write(documents.step_output(conn, run_id, leaf.step_slug) or b"null")
            continue
        written += file.write(b"[")
        for index, item in enumerate(documents.iter_map_output(conn, run_id, leaf.step_slug)):
            written += file.write(b", " * bool(index) + item)
        written += file.write(b"]")
    return written + file.write(b"}\n")
