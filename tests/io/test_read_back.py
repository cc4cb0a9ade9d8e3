"""What is written is read back, equal, by tools that are not ours: csv, json, pyarrow, pandas, duckdb."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq
import pytest
import zstandard

from pgflow_mp.io.sinks import open_sink

ROWS: list[dict[str, Any]] = [
    {
        "i": -(2**63), "u": 2**63, "f": 0.1, "s": 'a "quoted", text\r\nof lines\n\tand ünï 漢 🎈 \\n',
        "day": date(2026, 1, 31), "at": datetime(2026, 1, 31, 23, 59, 59, 123456), "b": True, "e": "'",
    },
    {
        "i": 2**63 - 1, "u": 2**64 - 1, "f": -1.5e300, "s": '"', "day": date(1, 1, 1),
        "at": datetime(9999, 12, 31), "b": False, "e": ",",
    },
    {"i": None, "u": None, "f": None, "s": None, "day": None, "at": None, "b": None, "e": None},
    {"i": 0, "u": 0, "f": 1e-300, "s": "\n", "day": date(2024, 2, 29), "at": datetime(1970, 1, 1), "b": True,
     "e": ";"},
]  # fmt: skip
OPENERS: dict[str, Any] = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def stored(value: Any) -> Any:
    """As JSON has it."""
    return json.loads(msgspec.json.encode(value))


def cell(value: Any) -> str:
    found = stored(value)
    return "" if found is None else found if isinstance(found, str) else msgspec.json.encode(found).decode()


def write(path: Path, format: str) -> Path:
    with open_sink(path, format) as sink:
        for row in ROWS:
            sink.write(msgspec.json.encode(row))
    return path


def text_of(path: Path) -> str:
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().decode()
    with OPENERS[path.suffix if path.suffix in OPENERS else ""](path, "rb") as file:
        return str(file.read().decode())


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_csv_and_lines_and_arrays(tmp_path: Path, packed: str) -> None:
    text = text_of(write(tmp_path / f"x.csv{packed}", "csv"))
    heading, *found = csv.reader(text.splitlines(keepends=True))
    assert heading == list(ROWS[0])
    assert found == [[cell(value) for value in row.values()] for row in ROWS]
    lines = text_of(write(tmp_path / f"x.jsonl{packed}", "jsonl")).removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == [stored(row) for row in ROWS]
    assert json.loads(text_of(write(tmp_path / f"x.json{packed}", "json"))) == [stored(row) for row in ROWS]


def test_what_is_compressed_is_smaller_and_always_the_same(tmp_path: Path) -> None:
    def written(name: str) -> bytes:
        with open_sink(tmp_path / name, "jsonl") as sink:
            for n in range(20_000):
                sink.write(b'{"n": %d}' % n)
        return (tmp_path / name).read_bytes()

    assert len(written("a.jsonl.gz")) < len(written("a.jsonl")) / 3
    assert written("a.jsonl.gz") == written("b.jsonl.gz")


def test_arrow_reads_all_of_them(tmp_path: Path) -> None:
    expected = [stored(row) for row in ROWS]
    table = pq.read_table(write(tmp_path / "x.parquet", "parquet"))
    assert table.to_pylist() == expected
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "i": "int64", "u": "uint64", "f": "double", "s": "string", "day": "string", "at": "string",
        "b": "bool", "e": "string",
    }  # fmt: skip
    texts = pcsv.ConvertOptions(column_types=dict.fromkeys(ROWS[0], "string"), strings_can_be_null=False)
    parse = pcsv.ParseOptions(newlines_in_values=True)
    found = pcsv.read_csv(
        write(tmp_path / "x.csv", "csv"), parse_options=parse, convert_options=texts
    ).to_pylist()
    assert found == [{name: cell(value) for name, value in row.items()} for row in ROWS]
    day = pjson.read_json(write(tmp_path / "x.jsonl", "jsonl")).column("day").to_pylist()
    assert [None if each is None else str(each)[:10] for each in day] == [row["day"] for row in expected]


@pytest.mark.slow
def test_pandas_reads_all_of_them(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    expected = [stored(row) for row in ROWS]
    texts = [{name: cell(value) for name, value in row.items()} for row in ROWS]
    for name in ("x.csv", "x.csv.gz"):
        frame = pandas.read_csv(
            write(tmp_path / name, "csv"), dtype=str, keep_default_na=False, lineterminator=None
        )
        assert frame.to_dict("records") == texts
    frame = pandas.read_csv(tmp_path / "x.csv", parse_dates=["at"], dtype={"i": "Int64", "u": "UInt64"})
    assert [None if pandas.isna(value) else int(value) for value in frame["u"]] == [r["u"] for r in ROWS]
    for name in ("x.jsonl", "x.jsonl.gz"):
        frame = pandas.read_json(write(tmp_path / name, "jsonl"), lines=True, dtype=False, precise_float=True)
        assert [None if pandas.isna(value) else value for value in frame["s"]] == [r["s"] for r in ROWS]
    frame = pandas.read_parquet(write(tmp_path / "x.parquet", "parquet"), dtype_backend="pyarrow")
    found = [
        {name: None if pandas.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]
    assert found == expected


@pytest.mark.slow
def test_duckdb_reads_all_of_them(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    expected = [tuple(stored(row).values()) for row in ROWS]
    types = {"i": "BIGINT", "u": "UBIGINT", "f": "DOUBLE", "s": "VARCHAR", "day": "DATE", "at": "TIMESTAMP",
             "b": "BOOLEAN", "e": "VARCHAR"}  # fmt: skip
    columns = ", ".join(f"'{name}': '{type}'" for name, type in types.items())
    values = [tuple(row.values()) for row in ROWS]
    for packed in ("", ".gz"):
        path = write(tmp_path / f"x.csv{packed}", "csv")
        found = duckdb.sql(f"select * from read_csv('{path}', header = true, columns = {{{columns}}})")
        assert found.fetchall() == values
        path = write(tmp_path / f"x.jsonl{packed}", "jsonl")
        found = duckdb.sql(f"select * from read_json('{path}', columns = {{{columns}}})")
        assert found.fetchall() == values
    path = write(tmp_path / "x.parquet", "parquet")
    assert duckdb.sql(f"select * from read_parquet('{path}')").fetchall() == expected
