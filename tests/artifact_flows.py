"""Flows that make artifacts, for the tests of them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from pgflow_mp import Artifact, Context, Flow

pictures = Flow("pictures", max_attempts=2, base_delay=1)


@pictures.map
def draw(number: int) -> Artifact:
    return Artifact.from_bytes(b"picture " * number, "picture.bin")


@pictures.map(over=draw)
def copy(artifact: Artifact, ctx: Context) -> dict[str, Artifact]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "copy.txt").write_bytes(artifact.read())
        made = Artifact.from_file(Path(folder) / "copy.txt")
    with ctx.artifact("notes.json") as file:
        file.write(b"[]")
    return {"copy": made, "notes": file.artifact}


@pictures.step(depends_on=[draw, copy])
def total(draw: list[Artifact], copy: list[dict[str, Artifact]]) -> int:
    with draw[-1].open() as file:
        assert file.read(7) == b"picture"
    return sum(len(each["copy"].path.read_bytes()) for each in copy)


in_tasks = Flow("in_tasks", storage="tasks")
in_tasks.map("draw", draw).map("copy", copy, over="draw").step("total", total, depends_on=["draw", "copy"])

unsteady = Flow("unsteady", max_attempts=3, base_delay=1)


@unsteady.map
def killed(number: int, ctx: Context) -> Artifact:
    """Killed in the midst of writing at its first attempt."""
    with ctx.artifact("half.bin") as file:
        file.write(b"half")
        file.flush()
        if ctx.attempt == 1:
            os.kill(os.getpid(), 9)
    return file.artifact


slow = Flow("slow")


@slow.map
def wait(seconds: float) -> Artifact:
    time.sleep(seconds)
    return Artifact.from_bytes(b"done", "done.txt")
