"""Flows of which items fail, for the tests of what is told of that."""

from __future__ import annotations

from typing import Any, Literal

from pgflow_mp import Flow


def name(number: int) -> dict[str, Any]:
    """A large element, which is known by a small part of it."""
    return {"path": f"f{number}.gz", "body": "x" * 5000}


def read_it(file: dict[str, Any]) -> int:
    """Fails for the second."""
    if file["path"] == "f1.gz":
        raise ValueError(f"no {file['path']!r}")
    return 1


def total(read_it: list[int | None]) -> int:
    """Fails."""
    raise ValueError("no total")


def twice(storage: Literal["tasks", "ranges"]) -> Flow:
    """A map over a map, and a step over that."""
    flow = Flow(f"twice_{storage}", max_attempts=1, storage=storage)
    flow.map("name", name)
    flow.map("read_it", read_it, over="name", tolerate=0.5)
    return flow.step("total", total, depends_on=["read_it"])


twice_tasks = twice("tasks")
twice_ranges = twice("ranges")
alone = Flow("alone", max_attempts=1)


@alone.step
def only(data: dict[str, Any]) -> int:
    """Fails for the input of its run."""
    raise ValueError("no")
