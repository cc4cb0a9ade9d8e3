"""Sources give raw elements of what people have, each with its place, and name what is wrong and where."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgflow_mp.errors import ConfigError, InputError
from pgflow_mp.installed import pip_install
from pgflow_mp.io import chosen, opening
from pgflow_mp.io.chosen import Wanted, choose
from pgflow_mp.io.iterables import Items
from pgflow_mp.io.source import SMALL, BadLine, ItemSource
from pgflow_mp.values.inputs import RunInput
from pgflow_mp.values.rows import FieldType, RowTypes

VALUES: list[Any] = [
    {"n": 1, "text": 'a "quoted" text,\nwith a line'},
    {"n": 2**63, "text": "ünï-\U0001f600, \u2028"},
    {"n": -1, "text": ""},
    [1, [2, [3, "]"]], {}],
    "plain ] , [ text \\",
    None,
    12.5,
]


_opened: list[ItemSource] = []


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    while _opened:
        _opened.pop().close()


def source(spec: str, kind: str | None = None, **more: Any) -> ItemSource:
    found = choose(spec, Wanted(kind, **more))
    assert isinstance(found, ItemSource), found
    _opened.append(found)
    return found


def everything(found: ItemSource) -> list[Any]:
    return [json.loads(bytes(raw)) for batch in found.batches() for raw in batch.elements]


def refusal(found: ItemSource) -> InputError:
    with pytest.raises(InputError) as caught:
        everything(found)
    return caught.value


def skipping(found: ItemSource) -> tuple[list[Any], list[BadLine]]:
    bad: list[BadLine] = []
    found.on_bad = bad.append
    return everything(found), bad


def many() -> list[Any]:
    return [VALUES[i % len(VALUES)] for i in range(50_000)]


def test_a_large_json_array_is_streamed_element_by_element_in_any_layout() -> None:
    values = many()
    for indent, name in ((None, "flat.json"), (2, "deep.json")):
        Path(name).write_text(json.dumps(values, indent=indent, ensure_ascii=indent is None))
        assert Path(name).stat().st_size > SMALL
        found = source(name)
        batches = [*found.batches()]
        assert len(batches) > 5
        assert [json.loads(bytes(raw)) for batch in batches for raw in batch.elements] == values
        assert found.position == found.size
    line = int(batches[1].place(0).split("line ")[1].split(",")[0])
    text = Path("deep.json").read_text().split("\n")[line - 1]
    assert text.startswith("  ")
    assert text.strip()[0] == bytes(batches[1].elements[0]).decode()[0]


def test_elements_across_the_ends_of_pieces_and_larger_ones_are_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "BATCH_BYTES", 7)
    values = [1234567890123, "x" * 500, True, None, -1.5e10, *VALUES, [[[]]], {"a": {"b": "\\"}}]
    for text in (json.dumps(values), json.dumps(values, indent=1, ensure_ascii=False)):
        Path("x.json").write_text(text)
        assert everything(source_of_array("x.json")) == values


def source_of_array(name: str) -> ItemSource:
    _opened.append(chosen._of_file(name, "json"))
    return _opened[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "line 1, column 6: it ends in the middle of the array"),
        ("[1,\n 2 3]", "line 2, column 4: a comma or a bracket is missing"),
        ("[1, 2] 3", "line 1, column 8: there is more after the array"),
        ('[1,\n{"a": NaN}]', "line 2, column 7: NaN is not JSON"),
        ("[1,\n {'a': 1}]", "line 2, column 3: strings need double quotes"),
        ('[1,\n "a\\u0000"]', "PostgreSQL cannot store the character \\u0000"),
        ('[1,\n {"a": 1, "a": 2}]', 'the key "a" is there more than once'),
        ("[1,,2]", "line 1, column 4"),
        (b'[1,\n"a",\n"b\xe9"]', "line 3: byte 0xe9 is not UTF-8"),
    ],
)
def test_what_is_wrong_in_an_array_is_told_with_its_place(text: str | bytes, message: str) -> None:
    Path("x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    error = str(refusal(source_of_array("x.json")))
    assert error.startswith("x.json, line ")
    assert message in error


def test_numbers_of_thousands_of_digits_are_elements_in_any_format() -> None:
    """As in a short array: what reads them may refuse them, PostgreSQL holds them."""
    long = "9" * 6000
    for text in (
        f"[1, {long}, 2]",
        f"[1, {long}]",
        f"[-{long}.5]",
        f"[1,\n{{'a': {long}}}]".replace("'", '"'),
    ):
        Path("x.json").write_text(text)
        found = [bytes(raw) for batch in source_of_array("x.json").batches() for raw in batch.elements]
        assert b",".join(found) in text.replace(" ", "").replace("\n", "").encode().replace(b'"a":', b'"a": ')


def test_jsonl_is_read_by_blocks_with_the_numbers_of_its_lines() -> None:
    values = many()
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    lines[10] = "  "
    del values[10]
    Path("x.jsonl").write_text("\ufeff" + "\r\n".join(lines))
    batches = [*source("x.jsonl").batches()]
    assert [json.loads(bytes(raw)) for batch in batches for raw in batch.elements] == values
    assert batches[0].place(9) == "x.jsonl, line 10"
    assert batches[0].place(10) == "x.jsonl, line 12"
    line = int(batches[3].place(1).rpartition(" ")[2])
    assert json.loads(lines[line - 1]) == json.loads(bytes(batches[3].elements[1]))


def test_bad_lines_are_named_or_skipped_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "SMALL", 0)
    bad = ['{"a": 1', "NaN", '{"a": 1, "a": 2}', '"\\u0000"', "\udcff", "x"]
    lines = [text for good, wrong in enumerate(bad) for text in (str(good), wrong)]
    Path("x.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    assert str(refusal(source("x.jsonl"))).startswith("x.jsonl, line 2, column 8: it ends in the middle")
    good, told = skipping(source("x.jsonl"))
    assert good == [0, 1, 2, 3, 4, 5]
    assert [one.place.split(", column")[0] for one in told] == [f"x.jsonl, line {n}" for n in range(2, 13, 2)]
    assert told[0].text == bad[0]
    assert "more than once" in told[2].reason


def test_each_line_is_a_text_whatever_is_in_it() -> None:
    Path("x.txt").write_bytes('a\n\n{\u2028}\r\n"q" \x0b \x1f\nend'.encode())
    assert everything(source("x.txt", "lines")) == ["a", "", "{\u2028}", '"q" \x0b \x1f', "end"]
    Path("y.txt").write_bytes(b"a\nb\xff\nc\0\nd\n")
    assert "y.txt, line 2, column 2: byte 0xff is not UTF-8" in str(refusal(source("y.txt", "lines")))
    good, told = skipping(source("y.txt", "lines"))
    assert good == ["a", "d"]
    assert [one.place for one in told] == ["y.txt, line 2, column 2", "y.txt, line 3, column 2"]


ROW = RowTypes(
    {
        "id": FieldType(["int"], "int"),
        "share": FieldType(["float"], "float"),
        "yes": FieldType(["bool"], "true or false"),
        "maybe": FieldType(["int", "null"], "int or nothing"),
        "list": FieldType(["json"], "JSON"),
        "extra": FieldType(["int"], "int", required=False),
    }
)


def test_csv_as_others_write_it_is_typed_by_the_columns() -> None:
    rows = [
        [str(2**63), "0.5", "true", "", "[1]", "7", 'quotes "here", and\nlines\r\nüñ'],
        ["+07", "1e3", "No", "-3", '{"a": "b"}', "", ""],
    ]
    with open("x.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "share", "yes", "maybe", "list", "extra", "text"], *rows])
    found = source("x.csv")
    found.row_types = ROW
    assert everything(found) == [
        {"id": 2**63, "share": 0.5, "yes": True, "maybe": None, "list": [1], "extra": 7, "text": rows[0][-1]},
        {"id": 7, "share": 1000.0, "yes": False, "maybe": -3, "list": {"a": "b"}, "text": ""},
    ]
    untyped = everything(source("x.csv"))
    with open("x.csv", newline="", encoding="utf-8-sig") as file:
        assert untyped == [*csv.DictReader(file)]
    Path("x.tsv").write_text('a\tb\n1\t"2\t3"\n')
    assert everything(source("x.tsv")) == [{"a": "1", "b": "2\t3"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,b\n1,x\ny,x\n", "x.csv, line 3, column \"id\": expected int, found 'y'"),
        ('id,b\n1,"x\ny"\n1_000,x\n', "x.csv, line 4, column \"id\": expected int, found '1_000'"),
        ("id,b\n,x\n", 'x.csv, line 2, column "id": expected int, found nothing'),
        ("share\nnan\n", "x.csv, line 2, column \"share\": expected float, found 'nan'"),
        ("share\n1e999\n", "column \"share\": expected float, found '1e999'"),
        ("yes\nperhaps\n", "column \"yes\": expected true or false, found 'perhaps'"),
        ("list\n[1\n", "column \"list\": expected JSON, found '[1'"),
        ("id,b\n1\n", "x.csv, line 2: it has 1 fields, and the header has 2"),
        ('id,b\n1,"x\n', "x.csv, line 2: this is not a row"),
        ("id,id\n1,2\n", 'x.csv, line 1: column "id" occurs twice'),
        ("id,\n1,2\n", "x.csv, line 1: a column has no name"),
        ("", "x.csv is empty"),
        ("b\nx\0\n", 'x.csv, line 2, column "b": PostgreSQL cannot store'),
        ("b\n\udcff\n", "x.csv, line 2, character 1: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_with_line_and_column(text: str, message: str) -> None:
    Path("x.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    found = source("x.csv")
    found.row_types = ROW
    assert message in str(refusal(found))


def test_bad_rows_are_skipped_and_all_others_kept() -> None:
    lines = [f"{i},t" if i % 100 else f"x{i},t" for i in range(10_000)]
    Path("x.csv").write_text("\n".join(["id,text", *lines]))
    found = source("x.csv")
    found.row_types = ROW
    good, told = skipping(found)
    assert [row["id"] for row in good] == [i for i in range(10_000) if i % 100]
    assert [one.place for one in told][:2] == ['x.csv, line 2, column "id"', 'x.csv, line 102, column "id"']


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(data)),
}


@pytest.mark.parametrize(
    "ending", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("bz2", "xz"))) for name in PACK]
)
def test_compressed_files_are_read_and_damaged_ones_named(ending: str) -> None:
    values = [{"i": i, "noise": random.Random(i).random()} for i in range(40_000)]
    packed = PACK[ending]("".join(json.dumps(value) + "\n" for value in values).encode())
    name = f"x.jsonl.{ending}"
    Path(name).write_bytes(packed)
    found = source(name)
    assert everything(found) == values
    assert found.position == found.size == len(packed)
    Path(name).write_bytes(packed * 2)
    assert everything(source(name)) == values * 2
    for cut in (len(packed) // 2, len(packed) - 3, len(packed) + 20):
        Path(name).write_bytes((packed * 2)[:cut])
        with pytest.raises(InputError, match="cannot be read any further"):
            everything(source(name))
    Path(f"y.csv.{ending}").write_bytes(PACK[ending](b"a\n1\n"))
    assert everything(source(f"y.csv.{ending}")) == [{"a": "1"}]
    Path(f"z.json.{ending}").write_bytes(PACK[ending](b'{"a": 1}'))
    small = choose(f"z.json.{ending}", Wanted())
    assert isinstance(small, RunInput)
    assert small.json == b'{"a": 1}'


def test_parquet_and_arrow_rows_are_what_was_written() -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    day = datetime.date(2024, 2, 29)
    rows: list[dict[str, Any]] = [
        {"n": 2**62, "x": 0.5, "t": "ü\n", "none": None, "d": day, "m": decimal.Decimal("1.10"), "l": [1, 2]},
        {"n": -1, "x": float("nan"), "t": None, "none": None, "d": None, "m": None, "l": []},
    ] * 3000
    first, second = rows[:2]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, "x.parquet")
    with pa.OSFile("x.arrow", "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile("y.arrow", "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    for name in ("x.parquet", "x.arrow", "y.arrow"):
        found = everything(source(name))
        assert len(found) == len(rows)
        assert found[0] == {**first, "d": "2024-02-29", "m": "1.10"}
        assert found[1] == {**second, "x": None}
    Path("bad.parquet").write_bytes(b"PAR1 and no more")
    assert "bad.parquet cannot be read as parquet" in str(refusal(source("bad.parquet")))


def test_folders_and_patterns_are_paths_in_natural_order() -> None:
    for name in ("p10.png", "p2.png", "sub/p1.png", "sub/.hidden", "p1.txt"):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data", name).write_text(name)
    assert everything(source("data")) == ["data/p1.txt", "data/p2.png", "data/p10.png", "data/sub/p1.png"]
    assert everything(source("data/**/*.png")) == ["data/p2.png", "data/p10.png", "data/sub/p1.png"]
    (first, *_) = everything(source("data", stat=True))
    assert first == {"path": "data/p1.txt", "size": 6, "mtime": os.stat("data/p1.txt").st_mtime}
    with pytest.raises(InputError, match=r"No file matches data/\*.jpg"):
        choose("data/*.jpg", Wanted())
    Path("empty").mkdir()
    assert "There are no files in empty" in str(refusal(source("empty")))
    for number in (10, 9):
        Path(f"part{number}.csv").write_text(f"n\n{number}\n")
    several = source("part*.csv", "csv")
    several.row_types = RowTypes({"n": FieldType(["int"], "int")})
    assert everything(several) == [{"n": 9}, {"n": 10}]
    assert several.position == several.size


def test_standard_input_is_looked_at_without_waiting_for_its_end() -> None:
    lines = "\n".join(json.dumps([i, "x" * 50]) for i in range(30_000)).encode()
    for data, count in (
        (lines, 30_000),
        (gzip.compress(lines), 30_000),
        (b"[" + b",".join(lines.split(b"\n")) + b"]", 30_000),
    ):
        assert len(everything(source("-", stdin=io.BytesIO(data)))) == count
    small = choose("-", Wanted(stdin=io.BytesIO(b"1\n2\n")))
    assert isinstance(small, RunInput)
    assert small.json == b"[1,\n2]"
    with pytest.raises(InputError) as caught:
        choose("-", Wanted(stdin=io.BytesIO(b"./a.txt\n./b.txt\n")))
    assert "--each-line" in caught.value.hint
    assert everything(source("-", "lines", stdin=io.BytesIO(b"./a.txt\n./b.txt\n"))) == ["./a.txt", "./b.txt"]
    with pytest.raises(InputError, match="not a folder"):
        choose("-", Wanted("paths", stdin=io.BytesIO(b"./a.txt\n")))
    with pytest.raises(InputError, match="needs a file"):
        choose("-", Wanted("parquet", stdin=io.BytesIO(b"")))


def test_lines_longer_than_what_is_looked_at_are_lines() -> None:
    """On standard input, where no ending tells it, wherever the long one is."""
    long, short = b'{"a": "%b"}' % (b"x" * 2 * SMALL), b'{"a": 1}'
    for lines in ([short, long, short], [long, short], [short, short, long], [short, b"", long]):
        found = choose("-", Wanted(stdin=io.BytesIO(b"\n".join(lines) + b"\n")))
        wanted = [json.loads(line) for line in lines if line]
        assert (json.loads(found.json) if isinstance(found, RunInput) else everything(found)) == wanted
    one = choose("-", Wanted(stdin=io.BytesIO(long.replace(b"{", b"{\n") + b"\n")))
    assert isinstance(one, RunInput)
    with pytest.raises(InputError, match=r"line 1, column 2000006: there is more") as caught:
        everything(source("-", stdin=io.BytesIO(b'["' + b"x" * 2 * SMALL + b'"] [1]\n')))
    assert "jsonl" in caught.value.hint


def test_urls_are_read_with_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://box/x.csv.gz", "wb") as file:
        file.write(gzip.compress(b"a\n1\n"))
    assert everything(source("memory://box/x.csv.gz")) == [{"a": "1"}]
    Path("y.jsonl").write_text("".join(f"{i}\n" for i in range(200_000)))
    assert everything(source(f"file://{Path('y.jsonl').resolve()}")) == [*range(200_000)]
    with pytest.raises(InputError, match=r"There is no memory://box/none\.csv"):
        choose("memory://box/none.csv", Wanted())
    with pytest.raises(InputError, match=r"nowhere://x\.csv cannot be opened"):
        choose("nowhere://x.csv", Wanted())


def test_what_is_not_installed_is_said_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    Path("x.parquet").write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        choose("x.parquet", Wanted())
    assert caught.value.hint == f"Install it: {pip_install('parquet')}"


def test_iterables_generators_and_async_iterators() -> None:
    async def drawn() -> AsyncIterator[int]:
        for i in range(30_000):
            yield i

    def raising() -> Iterator[int]:
        yield 1
        raise LookupError("the end")

    assert everything(Items(drawn())) == [*range(30_000)]
    assert everything(Items(i for i in range(3))) == [0, 1, 2]
    assert everything(Items([])) == []
    with pytest.raises(LookupError):
        everything(Items(raising()))
    assert "Item 1 cannot be stored as JSON" in str(refusal(Items([1, float("nan")])))


def test_a_sample_is_read_ahead_and_comes_again() -> None:
    Path("x.csv").write_text("n\n" + "".join(f"{i}\n" for i in range(50_000)))
    found = source("x.csv")
    assert len(found.sample(100)) == 100
    found.row_types = RowTypes({"n": FieldType(["int"], "int")})
    assert [row["n"] for row in everything(found)] == [*range(50_000)]


def test_no_row_after_a_bad_header_is_taken_for_the_header() -> None:
    Path("x.csv").write_text('"a"x,b\n1,x\n3,4\n')
    found = source("x.csv")
    found.on_bad = print
    assert "x.csv, line 1: this is not a row" in str(refusal(found))
    Path("mac.csv").write_bytes(b"a,b\r1,2\r")
    told = refusal(source("mac.csv"))
    assert "mac.csv, line 1: this is not a row" in str(told)
    assert "tr '\\r' '\\n'" in told.hint


def test_many_columns_are_read_in_a_time_that_grows_with_them() -> None:
    Path("x.csv").write_text(",".join(f"c{i}" for i in range(60_000)) + "\n" + "," * 59_999 + "\n")
    began = time.process_time()
    assert len(everything(source("x.csv"))[0]) == 60_000
    assert time.process_time() - began < 10


def test_names_of_columns_that_no_object_can_have_are_refused() -> None:
    Path("x.csv").write_bytes(b"a\0,b\n1,2\n")
    assert "x.csv, line 1: the name of a column: PostgreSQL cannot store" in str(refusal(source("x.csv")))
    Path("y.csv").write_bytes(b"\xfc,b\n1,2\n")
    found = source("y.csv")
    found.on_bad = print
    assert "y.csv, line 1: the name of a column: byte 0xfc is not UTF-8" in str(refusal(found))


def test_rows_that_are_not_utf8_are_skipped_like_other_bad_rows() -> None:
    Path("x.csv").write_bytes(b"a,b\n1,x\n2,\xfc\n3,\xc3\xbc\n")
    good, told = skipping(source("x.csv"))
    assert good == [{"a": "1", "b": "x"}, {"a": "3", "b": "ü"}]
    assert told == [
        BadLine('x.csv, line 3, column "b"', "byte 0xfc is not UTF-8", "2,\N{REPLACEMENT CHARACTER}")
    ]


@pytest.mark.parametrize(
    "bad", ['{"a": 1} {"b": 2}', *(pytest.param(bad, marks=pytest.mark.slow) for bad in ("[1,\n2]", "1\r2"))]
)
def test_a_line_of_a_long_file_is_one_value_as_in_a_short_one(bad: str) -> None:
    lines = '{"i": 1}\n' * (SMALL // 8)
    for text in (f"{bad}\n{lines}", f"{lines}\n{bad}\n", f"{lines}{bad}"):
        Path("x.jsonl").write_text(text, newline="")
        assert "x.jsonl, line " in str(refusal(source("x.jsonl")))
        good, told = skipping(source("x.jsonl"))
        assert good == [{"i": 1}] * lines.count("\n")
        assert len(told) == 1 + bad.count("\n")
