"""Files, folders and pipes as they should not be: each is read, or refused with its place."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pgflow_mp.errors import InputError
from pgflow_mp.io import chosen
from pgflow_mp.io.chosen import Wanted, choose
from pgflow_mp.io.source import BadLine, ItemSource


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def everything(spec: str, kind: str | None = None, bad: list[BadLine] | None = None) -> list[Any]:
    found = choose(spec, Wanted(kind))
    assert isinstance(found, ItemSource), found
    if bad is not None:
        found.on_bad = bad.append
    try:
        return [json.loads(bytes(raw)) for batch in found.batches() for raw in batch.elements]
    finally:
        found.close()


def refusal(spec: str, kind: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        everything(spec, kind)
    return str(caught.value)


def test_patterns_end_where_links_lead_back_and_follow_the_others() -> None:
    for name in ("a/b/x.csv", "a/.hidden/x.csv", "out/o.csv", "x.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("n\n")
    os.symlink("../out", "a/link")
    for name in ("a/up", "a/up2", "a/b/up", "a/b/up2"):
        os.symlink("..", name)
    os.symlink("self", "a/self")
    assert everything("**/*.csv") == ["a/b/x.csv", "a/link/o.csv", "out/o.csv", "x.csv"]
    assert everything("**/b/**/*.csv") == ["a/b/x.csv"]
    assert everything("a/**") == ["a/b/x.csv", "a/link/o.csv"]
    assert everything("a") == ["a/b/x.csv"]


def test_folders_may_be_as_deep_as_the_system_lets_them() -> None:
    try:
        handle = os.open(".", os.O_RDONLY)
        for _ in range(1100):
            os.mkdir("a", dir_fd=handle)
            below = os.open("a", os.O_RDONLY, dir_fd=handle)
            os.close(handle)
            handle = below
        os.close(os.open("f.txt", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
        os.close(handle)
        deepest = "a/" * 1100 + "f.txt"
        assert everything(".") == ["./" + deepest]
        assert everything("**/*.txt") == [deepest]
    finally:
        subprocess.run(["rm", "-rf", "a"], check=True)  # pytest, which clears up later, cannot go so deep


@pytest.mark.parametrize("text", ['{"a": 1}', "{}", "51, 2]", "7"])
def test_of_several_json_files_each_has_to_be_an_array(text: str) -> None:
    Path("d").mkdir()
    Path("d/1.json").write_text("[1, 2]")
    Path("d/2.json").write_text(f"\n {text}")
    assert "d/2.json, line 2: this is not an array" in refusal("d", "json")


def test_several_files_of_which_one_is_gone_or_all_are_refused_by_name() -> None:
    Path("d").mkdir()
    assert "There are no files in d" in refusal("d", "csv")
    for name in ("d/1.csv", "d/2.csv"):
        Path(name).write_text("a\n1\n")
    found = choose("d", Wanted("csv"))
    assert isinstance(found, ItemSource)
    found.look()
    os.unlink("d/1.csv")
    os.unlink("d/2.csv")
    with pytest.raises(InputError, match=r"d/2\.csv cannot be read: No such file"):
        list(found.batches())
    found.close()


def test_what_is_no_array_is_not_read_beyond_what_a_run_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "LIMIT", 3_000_000)
    assert "/dev/zero is not an array and has more than" in refusal("/dev/zero")


def test_an_element_of_many_megabytes_takes_a_time_that_grows_with_it() -> None:
    Path("x.json").write_bytes(b'["' + b"x" * 60_000_000 + b'", 1]')
    begin = time.process_time()
    assert [len(str(value)) for value in everything("x.json")] == [60_000_000, 1]
    assert time.process_time() - begin < 5


def test_values_of_parquet_that_json_has_not_are_refused_or_skipped_by_row() -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for values, type in (
        ([1000, 1, 2000], pa.duration("ns")),
        ([1, 3_000_000, 2], pa.date32()),
        ([1, 2**40, 2], pa.timestamp("s")),
    ):
        pq.write_table(pa.table({"x": pa.array(values, type)}), "x.parquet")
        assert "x.parquet, row 2: no value of JSON: " in refusal("x.parquet")
        bad: list[BadLine] = []
        assert len(everything("x.parquet", bad=bad)) == 2
        assert [one.place for one in bad] == ["x.parquet, row 2"]
    pq.write_table(pa.table({"x": pa.array([b"a", b"\xff"]).view(pa.string())}), "x.parquet")
    assert "x.parquet, row 2: no value of JSON: " in refusal("x.parquet")


def test_parquet_out_of_a_pipe_is_refused() -> None:
    pytest.importorskip("pyarrow")
    os.mkfifo("x.parquet")
    writer = threading.Thread(target=lambda: os.close(os.open("x.parquet", os.O_WRONLY)))
    writer.start()
    try:
        assert "x.parquet cannot be read as parquet: that needs a file, not a pipe" in refusal("x.parquet")
    finally:
        writer.join(5)
