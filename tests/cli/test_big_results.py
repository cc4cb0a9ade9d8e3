"""Many lines through a map into files, in one command: order, count, and how much memory that takes."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from cli_harness import Cli, environment

ITEMS = 300_000
LIMIT = 100e6
"""Bytes of the command's own process that it shares with nobody; pyarrow alone is half of it."""
CODE = """
from typing import TypedDict
from pgflow_mp import Flow

class Row(TypedDict):
    n: int
    text: str

rows = Flow("rows")

@rows.map
def row(row: Row) -> Row:
    return {"n": 2 * row["n"], "text": row["text"].upper()}
"""


def rows_of(path: Path) -> Iterator[tuple[int, str]]:
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches():
            yield from ((row["n"], row["text"]) for row in batch.to_pylist())
        return
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        if ".csv" in path.name:
            yield from ((int(row["n"]), row["text"]) for row in csv.DictReader(file))
        else:
            yield from ((row["n"], row["text"]) for row in map(json.loads, file))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv.gz", "x.parquet"])
def test_lines_through_a_map_into_a_file_in_constant_memory(cli: Cli, name: str) -> None:
    (cli.cwd / "rows.py").write_text(CODE)
    with (cli.cwd / "in.jsonl").open("w") as file:
        file.writelines(f'{{"n": {n}, "text": "line {n}"}}\n' for n in range(ITEMS))
    command = cli.command("run", "rows.py", "--input", "in.jsonl", "--output", name, "--workers", "2")
    process = subprocess.Popen(
        command, cwd=cli.cwd, env=environment(cli.cwd), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_full_info().uss)
        except psutil.Error:
            break
        time.sleep(0.05)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    count = 0
    for n, (doubled, text) in enumerate(rows_of(cli.cwd / name)):
        assert (doubled, text) == (2 * n, f"LINE {n}")
        count += 1
    assert count == ITEMS
    assert peak < LIMIT, f"{peak / 1e6:.0f} MB"
