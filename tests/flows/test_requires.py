"""What steps require of workers, as it is written in Python."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgflow_mp import Flow
from pgflow_mp.errors import ConfigError, FlowDefinitionError
from pgflow_mp.flows.labels import labels_of
from pgflow_mp.worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (None, ()),
        ([], ()),
        ("gpu", ("gpu",)),
        ("gpu, bigmem,gpu", ("bigmem", "gpu")),
        ({"zone=a", "cuda:12.4"}, ("cuda:12.4", "zone=a")),
    ],
)
def test_labels_are_written_as_texts(given: Any, labels: tuple[str, ...]) -> None:
    assert labels_of(given) == labels


@pytest.mark.parametrize(
    "given", ["", "a,,b", ["a b"], [1], 5, b"gpu", ["-x"], ["x" * 65], [f"l{n}" for n in range(101)]]
)
def test_what_is_no_label_is_refused_where_it_is_written(given: Any) -> None:
    with pytest.raises(FlowDefinitionError, match=r'requires of step "s" of flow "f": '):
        Flow("f").step("s", len, requires=given)
    with pytest.raises(ConfigError, match="labels: "):
        WorkerSettings(dsn="", targets=("t",), labels=given)


def test_requirements_reach_shape_and_sql(tx: psycopg.Connection[tuple[object, ...]]) -> None:
    flow = Flow("f").map("m", abs, requires=["gpu", "bigmem"]).step("s", len, requires="gpu")
    assert [step["options"] for step in flow.shape()["steps"]] == [
        {"requires": ["bigmem", "gpu"]},
        {"requires": ["gpu"]},
    ]
    statements = flow.to_sql().splitlines()
    assert statements[-2:] == [
        "SELECT pgflow.set_requirements('f', 'm', ARRAY['bigmem', 'gpu']);",
        "SELECT pgflow.set_requirements('f', 's', ARRAY['gpu']);",
    ]
    for statement in statements:
        tx.execute(statement.encode())
    rows = tx.execute("select step_slug, labels from pgflow.step_requirements order by 1").fetchall()
    assert rows == [("m", ["bigmem", "gpu"]), ("s", ["gpu"])]
