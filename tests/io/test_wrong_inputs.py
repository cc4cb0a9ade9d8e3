"""Everything that people give in the place of an input: what it is, where, and what to do instead."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from pgflow_mp.errors import ConfigError, InputError, PgflowError
from pgflow_mp.installed import pip_install
from pgflow_mp.io import opening
from pgflow_mp.io.chosen import Wanted, choose
from pgflow_mp.io.query import Query
from pgflow_mp.io.source import BadLine, ItemSource

TABLE = "a,b\n1,2\n"
BINARY = bytes(range(128, 256)) * 3


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(spec: str, kind: str | None = None, stdin: bytes | None = None) -> PgflowError:
    """Why it is no input."""
    with pytest.raises(PgflowError) as caught:
        rows(spec, kind, stdin)
    return caught.value


def rows(spec: str, kind: str | None = None, stdin: bytes | None = None) -> list[object]:
    found = choose(spec, Wanted(kind, stdin=None if stdin is None else io.BytesIO(stdin)))
    if not isinstance(found, ItemSource):
        return [json.loads(found.json)]
    try:
        return [json.loads(bytes(raw)) for batch in found.batches() for raw in batch.elements]
    finally:
        found.close()


@pytest.mark.parametrize(
    ("name", "data", "told", "hint"),
    [
        ("x.csv", TABLE.encode("utf-16"), "is UTF-16, not UTF-8 text", "iconv -f utf-16 -t utf-8"),
        ("x.tsv", TABLE.encode("utf-16-le"), "is UTF-16 without a mark", "iconv -f utf-16le -t utf-8"),
        ("x.jsonl", '{"a": 1}\n'.encode("utf-16-be"), "is UTF-16 without a mark", "iconv -f utf-16be"),
        ("x.json", "[1]".encode("utf-16"), "is UTF-16, not UTF-8 text", "iconv"),
        ("x.csv", TABLE.encode("utf-32"), "is UTF-32, not UTF-8 text", "iconv -f utf-32"),
        ("x.csv", b"a,b\n\xe9,1\n", "line 2, character 1: byte 0xe9 is not UTF-8", "iconv -f latin1"),
        ("x.jsonl", b'"\xe9"\n', "line 1, column 2: byte 0xe9 is not UTF-8", "iconv -f latin1"),
        ("x.csv", BINARY, "line 1, character 1: byte 0x80 is not UTF-8", "iconv"),
        ("x.dat", BINARY, "x.dat, line 1, column 1: invalid character", "This is no text."),
        ("x.xlsx", b"PK\x03\x04" + BINARY, "is a zip archive, or a workbook", "save its sheet as CSV"),
        ("x.png", b"\x89PNG\r\n" + BINARY, "is a PNG image, not text", "a pattern: 'data/*.png'"),
        ("x.csv", b"PAR1\x15" + BINARY, "is a Parquet file, not text", "--format parquet"),
        ("x.db", b"SQLite format 3\0" + BINARY, "is an SQLite database", "Export a table as CSV"),
        ("x.txt", b"a.png\nb.png\n", "line 1, column 1: invalid character", "--each-line"),
        ("x.dat", b"1,2\n3,4\n", "there is more after the end of the value", "--format csv"),
        ("x.parquet", b"", "cannot be read as parquet", "something else: give its --format"),
        ("x.parquet", TABLE.encode(), "cannot be read as parquet", "something else: give its --format"),
        ("x.arrow", TABLE.encode(), "cannot be read as arrow", "something else: give its --format"),
        ("x.csv", b"", "x.csv is empty", "names of the columns"),
        ("x.json", b"", "x.json is empty", "An empty array is []"),
        ("x.json.gz", gzip.compress(b"", mtime=0), "x.json.gz is empty", "An empty array is []"),
        ("x.csv", b"a,b\n1,2\na,b\n3,4\n", "line 3: this is the header once more", "--on-bad-line skip"),
        ("x.csv", b"a,b\n1,2,3\n", "line 2: it has 3 fields, and the header has 2", "--on-bad-line"),
        ("x.csv", b"a,b\n1\n", "line 2: it has 1 fields, and the header has 2", "--on-bad-line"),
        ("x.json", b'{"a":1}\n{"a":2}\n', "line 2, column 1: there is more after", "--jsonl"),
        ("x.csv", b"a\n\0\n", 'line 2, column "a": PostgreSQL cannot store', ""),
    ],
)
def test_a_file_of_another_kind(name: str, data: bytes, told: str, hint: str) -> None:
    if name.endswith((".parquet", ".arrow")):
        pytest.importorskip("pyarrow")
    Path(name).write_bytes(data)
    error = refusal(name)
    assert isinstance(error, InputError)
    assert f"{name}" in str(error)
    assert told in str(error)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("spec", "kind", "told", "hint"),
    [
        ("missing.csv", None, "There is no file missing.csv", "Give a file (.json, .jsonl, .csv"),
        ("missing", None, "'missing' is neither a file nor JSON", "a folder or pattern"),
        ("no/x.csv", None, "There is no file no/x.csv", "There is no directory no either."),
        ("empty", None, "There are no files in empty", "Hidden files do not count."),
        ("empty", "csv", "There are no files in empty", "Hidden files do not count."),
        ("nowhere", "paths", "There is no folder nowhere", "a pattern: 'data/**/*.png'"),
        ("none*.csv", "csv", "No file matches none*.csv", "'data/**/*.png'"),
        ("", None, "--input is empty", "a folder or pattern"),
        ("foo://bar/x.csv", None, "foo://bar/x.csv cannot be opened: Protocol not known", "s3, gs"),
        ("memory://none.csv", None, "There is no memory://none.csv", ""),
        ("memory://none.parquet", None, "There is no memory://none.parquet", ""),
        ("x.txt", "csv", "x.txt, line 1: this is not a row", "converted"),
    ],
)
def test_a_name_of_nothing(spec: str, kind: str | None, told: str, hint: str) -> None:
    Path("empty").mkdir()
    if "://" in spec:
        pytest.importorskip("fsspec")
        pytest.importorskip("pyarrow")
    if spec == "x.txt":
        Path(spec).write_bytes(b"a\rb\r")
        hint = "convert it first: tr"
    error = refusal(spec, kind)
    assert told in str(error)
    assert hint in error.hint


def test_lines_and_fields_that_are_too_long_name_their_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LONGEST", 1_000_000)
    for name, kind in (("x.jsonl", None), ("x.csv", None), ("x.txt", "lines")):
        Path(name).write_bytes(b'"a"\n"' + b"x" * 1_200_000)
        error = refusal(name, kind)
        assert f"{name}, line 2 is longer than 1 MB" in str(error)
        assert "If it is of another format" in error.hint
    Path("y.csv").write_bytes(b'a,b\n1,"' + b"x" * 16_100_000 + b'"\n')
    monkeypatch.setattr(opening, "LONGEST", 100_000_000)
    assert "y.csv, line 2: this is not a row: field larger than" in str(error := refusal("y.csv"))
    assert "whose paths are the items" in error.hint


def test_what_find_prints_is_told_how_to_be_read() -> None:
    for text in (b"./a.png\n./b.png\n", b"/data/a.png\n", b"12-a.png\n"):
        assert "--each-line" in refusal("-", None, text).hint
    assert rows("-", "lines", b"./a.png\n./b.png\n") == ["./a.png", "./b.png"]
    assert "standard input is empty" in str(refusal("-", None, b""))


def test_semicolons_and_tabs_of_csv_are_understood_where_the_header_has_no_comma() -> None:
    for name, text, expected in (
        ("x.csv", "a;b\n1,5;2\n", {"a": "1,5", "b": "2"}),
        ("x.csv", "a\tb\n1\t2\n", {"a": "1", "b": "2"}),
        ("x.csv", "a;b,c\n1,2\n", {"a;b": "1", "c": "2"}),
        ("x.csv", '"a;b"\n1\n', {"a;b": "1"}),
        ("x.tsv", "a;b\n1\n", {"a;b": "1"}),
        ("x.csv", "word\nword\n", {"word": "word"}),
    ):
        Path(name).write_text(text)
        assert rows(name) == [expected]


def test_headers_in_between_are_skipped_where_bad_lines_are() -> None:
    Path("x.csv").write_text("a, b\n1,2\na, b\n3,4\n")
    found = choose("x.csv", Wanted())
    assert isinstance(found, ItemSource)
    bad: list[BadLine] = []
    found.on_bad = bad.append
    with_rows = [json.loads(bytes(raw)) for batch in found.batches() for raw in batch.elements]
    found.close()
    assert with_rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert [one.place for one in bad] == ["x.csv, line 3"]


@pytest.mark.parametrize(("spec", "extra"), [("s3://x/y.csv", "remote"), ("x.arrow", "parquet")])
def test_libraries_that_are_not_there_are_named(
    spec: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fsspec", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    Path("x.arrow").touch()
    error = refusal(spec)
    assert isinstance(error, ConfigError)
    assert error.hint == f"Install it: {pip_install(extra)}"


def test_what_a_scheme_needs_besides_fsspec_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    error = refusal("s3://x/y.csv")
    assert "s3://x/y.csv cannot be opened: Install s3fs" in str(error)
    assert "what reads s3://" in error.hint


@pytest.mark.parametrize(
    ("query", "told", "hint"),
    [
        ("selec 1", 'was refused: syntax error at or near "1"', "one SELECT"),
        ("select 1; select 2", 'was refused: syntax error at or near ";"', "one SELECT"),
        ("delete from x", "was refused: syntax error", "one SELECT"),
        ("select * from nothere", 'was refused: relation "nothere" does not exist', ""),
        ("select 1 / 0", "was refused: division by zero", ""),
        ("select 1 as a, 2 as b, 3 as a", 'has two columns "a"', "as other_name"),
        (" ; ", "--sql is empty", "select ..."),
    ],
)
def test_queries_that_have_no_rows_to_give(dsn: str, query: str, told: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        list(Query(query, dsn).batches())
    assert told in str(caught.value)
    assert hint in caught.value.hint
    assert list(Query("select 1 where false", dsn).batches()) == []


def test_a_server_of_rows_that_is_not_there() -> None:
    with pytest.raises(PgflowError, match="Connection refused") as caught:
        list(Query("select 1", "postgresql://me:secret@127.0.0.1:1/x").batches())
    assert "--sql-dsn" in caught.value.hint
    assert "secret" not in str(caught.value)
