"""What sinks write is read back, equal, by tools that are not ours."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from pgflow_mp.errors import InputError, PgflowError
from pgflow_mp.io.atomic import write_atomically
from pgflow_mp.io.sinks import FORMATS, check_format, open_sink, parquet

HOSTILE = 'a "quoted", text\r\nof lines\n\rand\rüñí 漢 \\ \t'


def write(path: Path, items: list[Any], format: str | None = None) -> Path:
    with open_sink(path, format or path.suffix[1:]) as sink:
        for item in items:
            sink.write(msgspec.json.encode(item))
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def table(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_lines_and_arrays_are_what_they_were(tmp_path: Path) -> None:
    items = [HOSTILE, None, 2**63, {"a": [1, {}]}, 0.1]
    lines = write(tmp_path / "x.jsonl", items).read_bytes().decode()
    assert [json.loads(line) for line in lines.removesuffix("\n").split("\n")] == items
    (tmp_path / "x.jsonl").unlink()
    assert json.loads(write(tmp_path / "x.json", items).read_text()) == items
    assert write(tmp_path / "x.json", []).read_text() == "[]\n"


def test_objects_are_rows_of_csv_whatever_is_in_them(tmp_path: Path) -> None:
    items = [
        {"a": 1, "b": HOSTILE},
        {"b": '"', "a": 2**63},
        {"c,\n": [1, "x"], "a": None},
        {"a": True, "d": {"e": "é"}, "b": ""},
    ]
    heading, *found = rows(write(tmp_path / "x.csv", items))
    assert heading == ["a", "b", "c,\n", "d"]
    assert found == [
        ["1", HOSTILE, "", ""],
        [str(2**63), '"', "", ""],
        ["", "", '[1,"x"]', ""],
        ["true", "", "", '{"e":"é"}'],
    ]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], [["value"]]),
        ([1, "x", [2]], [["value"], ["1"], ["x"], ["[2]"]]),
        ([None, "", 3], [["value"], [""], [""], ["3"]]),
        ([None, None], [["value"], [""], [""]]),
        ([None, {"a": 1, "b": 2}], [["a", "b"], ["", ""], ["1", "2"]]),
        ([7, {"a": 1}, None], [["value", "a"], ["7", ""], ["", "1"], ["", ""]]),
        ([{"a": None}, {"a": None, "b": 1}], [["a", "b"], ["", ""], ["", "1"]]),
        ([{}, {"a": 1}], [["a"], [""], ["1"]]),
    ],
)
def test_other_items_are_rows_of_csv(tmp_path: Path, items: list[Any], expected: list[list[str]]) -> None:
    assert rows(write(tmp_path / "x.csv", items)) == expected


def test_numbers_keep_their_digits_in_csv() -> None:
    stream = io.BytesIO()
    with open_sink(stream, "csv") as sink:
        sink.write(b'{"n": 1.10, "m": 123456789012345678901234567890.5}')
    assert stream.getvalue() == b"n,m\r\n1.10,123456789012345678901234567890.5\r\n"


def test_many_rows_that_get_wider_and_wider(tmp_path: Path) -> None:
    items = [{f"f{n // 997}": f'{n}"\r\n,'} for n in range(20_000)]
    heading, *found = rows(write(tmp_path / "x.csv", items))
    assert len(heading) == 21
    assert [{k: v for k, v in zip(heading, row, strict=True) if v} for row in found] == items


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_objects_that_are_rather_tables_of_values_are_refused(tmp_path: Path, format: str) -> None:
    with (
        pytest.raises(PgflowError, match="more than 10,000 different fields") as caught,
        open_sink(tmp_path / "x", format) as sink,
    ):
        sink.write(msgspec.json.encode({str(n): n for n in range(10_001)}))
    assert ".jsonl" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_parquet_has_types(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [
        {"i": 1, "f": 0.5, "s": HOSTILE, "b": True, "l": [1, 2], "o": {"x": 1}, "u": 2**63},
        {"i": None, "f": 2.0, "s": "", "b": False, "l": [], "o": {"x": None}, "u": 1},
    ]
    path = write(tmp_path / "x.parquet", items)
    assert table(path) == items
    assert [str(type) for type in pq.read_schema(path).types[:4]] == ["int64", "double", "string", "bool"]


def test_parquet_of_items_whose_types_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 2)
    items = [{"a": None, "n": 1, "m": 1}, {"n": 2, "m": [1]}, {"a": "x", "n": 2.5, "m": "z"}, None, 7]
    found = table(write(tmp_path / "x.parquet", items))
    assert [row["a"] for row in found] == [None, None, "x", None, None]
    assert [row["n"] for row in found] == [1.0, 2.0, 2.5, None, None]
    assert [row["m"] for row in found] == ["1", "[1]", "z", None, None]
    assert [row["value"] for row in found] == [None, None, None, None, 7]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([1, None, 3], [{"value": 1}, {"value": None}, {"value": 3}]),
        ([{"e": {}}, {"e": {}}], [{"e": "{}"}, {"e": "{}"}]),
        ([{"n": 2**70}, {"n": 1}], [{"n": str(2**70)}, {"n": "1"}]),
        ([{"n": 2**60 + 1}, {"n": 0.5}], [{"n": str(2**60 + 1)}, {"n": "0.5"}]),
        ([None], [{"value": None}]),
    ],
)
@pytest.mark.parametrize("rows", [1, 10])
def test_parquet_of_what_has_no_type(
    tmp_path: Path, items: list[Any], expected: list[Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROWS", rows)
    assert table(write(tmp_path / "x.parquet", items)) == expected


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_gets_the_same_as_a_file(tmp_path: Path, format: str) -> None:
    items = [{"a": n, "b": HOSTILE} for n in range(100)]
    read, send = os.pipe()
    with open(send, "wb") as pipe, open_sink(pipe, format) as sink:
        for item in items:
            sink.write(msgspec.json.encode(item))
    with open(read, "rb") as end:
        assert end.read() == write(tmp_path / "x", items, format).read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_an_error_leaves_what_was_there(tmp_path: Path, format: str) -> None:
    path = tmp_path / ("ü" * 120)
    path.write_text("of yesterday")

    def fail() -> None:
        with open_sink(path, format) as sink:
            sink.write(b"{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [other.name for other in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "of yesterday"


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_told(format: str) -> None:
    def fill() -> None:
        with open_sink(Path("/dev/full"), format) as sink:
            for n in range(10_000):
                sink.write(b"%d" % n)

    with pytest.raises(PgflowError, match="/dev/full cannot be written: No space left"):
        fill()


@pytest.mark.parametrize("format", FORMATS)
def test_one_that_is_killed_leaves_what_was_there(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    path.write_text("of yesterday")
    code = f"""
import sys
from pathlib import Path
from pgflow_mp.io.sinks import open_sink
with open_sink(Path({str(path)!r}), {format!r}) as sink:
    for n in range(200_000):
        sink.write(b'{{"n": %d}}' % n)
        if n == 100_000:
            print("half", flush=True)
            sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "of yesterday"


@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_items(tmp_path: Path, format: str) -> None:
    peaks = []
    for count in (20_000, 60_000):
        tracemalloc.start()
        with open_sink(tmp_path / "x", format) as sink:
            for n in range(count):
                sink.write(b'{"n": %d, "text": "%060d"}' % (n, n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 100_000


def test_endings_tell_the_format_and_unknown_ones_are_refused() -> None:
    names = {
        "a.json": "json",
        "a.JSONL": "jsonl",
        "a.ndjson": "jsonl",
        "b/a.csv": "csv",
        "a.parquet": "parquet",
        "a.jsonl.gz": "jsonl",
        "v1.2/a.b.CSV.GZ": "csv",
        "a.json.zst": "json",
    }
    assert {name: check_format(name, None, "--output", "--format") for name in names} == names
    for name in ("out", "v1.2", ".hidden"):
        assert check_format(name, None, "--output", "--format") is None
    unknown = {"out.cvs": ".cvs", "out.txt": ".txt", "a/b.tsv": ".tsv", "b.txt.gz": ".txt.gz", "c.gz": ".gz"}
    for name, ending in {**unknown, "v1.2.gz": ".gz", "a.csv.zip": ".zip"}.items():
        with pytest.raises(
            InputError, match=f"--output {name}: nothing here writes {ending} files"
        ) as caught:
            check_format(name, None, "--output", "--format")
        assert "--format json" in caught.value.hint
        assert check_format(name, "csv", "--output", "--format") == "csv"
    with pytest.raises(InputError, match=r"x\.parquet\.gz: Parquet files are compressed inside"):
        check_format("x.parquet.gz", None, "--output", "--format")


def test_where_a_link_leads_to_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, kept in (("old", b"old"), ("new", None)):
        real, link = tmp_path / "there" / name, tmp_path / name
        link.symlink_to(real)
        if kept is not None:
            real.write_bytes(kept)
        with write_atomically(link) as file:
            file.write(b"whole")
        assert (link.is_symlink(), real.read_bytes()) == (True, b"whole")
        with contextlib.suppress(KeyError), write_atomically(link) as file:
            file.write(b"half")
            raise KeyError
        assert real.read_bytes() == b"whole"


def test_a_descriptor_of_ours_is_written_to_as_it_comes(tmp_path: Path) -> None:
    """/dev/fd/9 is no file to be replaced, and neither is what it leads to."""
    with open(tmp_path / "x", "wb", buffering=0) as opened:
        opened.write(b"before ")
        for folder in ("/dev/fd", "/proc/self/fd"):
            with write_atomically(Path(f"{folder}/{opened.fileno()}")) as file:
                file.write(b"whole ")
        opened.write(b"after")
    assert (tmp_path / "x").read_bytes() == b"before whole whole after"
    with (
        pytest.raises(PgflowError, match="cannot be written: Bad file"),
        write_atomically(Path("/dev/fd/999")),
    ):
        pass
