"""storage, batch and barrier of a definition: what they may be, and what reaches the database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgflow_mp import Flow
from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows import storage
from pgflow_mp.flows.options import DEFAULT_STORAGE
from pgflow_mp.flows.shapes import definition, to_sql


def double(n: int) -> int:
    return 2 * n


def both(batch: list[int]) -> list[int]:
    return batch


def chain(of_flow: Any = None, **second: Any) -> Flow:
    """Two maps, one over the other."""
    flow = Flow("chain", storage=of_flow)
    return flow.map("first", double).map("second", double, over="first", **second)


def stored(flow: Flow, tx: psycopg.Connection[Any]) -> dict[str, str | None]:
    """The storages of a flow that the statements of its SQL make."""
    for statement in to_sql(flow, whole=True).splitlines():
        tx.execute(statement.encode())
    query = "select step_slug, storage from pgflow.step_policies where flow_slug = %s"
    return dict(tx.execute(query, (flow.slug,)).fetchall())


def test_a_map_has_its_own_storage_else_its_flows() -> None:
    flow = chain("ranges", storage="tasks")
    assert {slug: step.storage for slug, step in flow.steps.items()} == {"first": "ranges", "second": "tasks"}
    assert [step.storage for step in chain().steps.values()] == [None, None]
    assert Flow("f", storage="ranges").step("s", double).steps["s"].storage is None


def test_the_storage_rides_in_the_options_of_maps_and_nowhere_else() -> None:
    flow = chain("ranges").step("s", double)
    assert [step.get("options") for step in flow.shape()["steps"]] == [
        {"storage": "ranges"},
        {"storage": "ranges"},
        None,
    ]
    assert "options" not in flow.shape()
    assert definition(flow) == flow.shape()


def test_what_is_not_said_is_no_part_of_the_shape() -> None:
    assert [step.get("options") for step in chain(barrier=True).shape()["steps"]] == [None, None]


@pytest.mark.parametrize("default", ["tasks", "ranges"])
def test_the_default_is_for_new_flows_only(
    default: str, monkeypatch: pytest.MonkeyPatch, tx: psycopg.Connection[Any]
) -> None:
    for module in ("storage", "shapes"):
        monkeypatch.setattr(f"pgflow_mp.flows.{module}.DEFAULT_STORAGE", default)
    flow = chain(storage="tasks").step("s", double)
    assert flow.shape()["steps"] == definition(flow)["steps"]
    assert "options" not in flow.shape()
    wanted = {"defaultStorage": "ranges"} if default == "ranges" else None
    assert definition(flow).get("options") == wanted
    assert storage.when_new(flow) == {"first": default, "second": "tasks"}
    assert stored(flow, tx) == ({"first": "ranges"} if default == "ranges" else {}) | {"second": "tasks"}
    tx.execute("select pgflow.ensure_flow_compiled('other', %s)", (Jsonb(definition(flow)),))
    query = "select step_slug, coalesce(storage, 'tasks') from pgflow.step_policies where flow_slug = 'other'"
    assert dict(tx.execute(query).fetchall()).get("first", "tasks") == default
    assert "options" not in definition(Flow("bare").step("s", double))
    assert [line for line in flow.to_sql().splitlines() if "set_step_policy" in line] == [
        "SELECT pgflow.set_step_policy('chain', 'second', storage => 'tasks');"
    ]


def test_without_a_barrier_a_map_and_its_parent_are_in_ranges(tx: psycopg.Connection[Any]) -> None:
    flow = chain(barrier=False)
    assert not flow.steps["second"].barrier
    assert flow.steps["first"].barrier
    assert [step["options"] for step in flow.shape()["steps"]] == [
        {"storage": "ranges"},
        {"storage": "ranges", "barrier": False},
    ]
    assert stored(flow, tx) == {"first": "ranges", "second": "ranges"}


def test_the_batch_of_a_step_is_known() -> None:
    flow = Flow("f").map("m", both, batch=256).map("n", double)
    assert (flow.steps["m"].batch, flow.steps["n"].batch) == (256, 0)
    assert flow.shape()["steps"][0]["options"] == {"batch": 256}
    assert "SELECT pgflow.set_step_policy('f', 'm', batch => 256" in flow.to_sql()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"storage": "range"},
            r"^storage of step \"m\" of flow \"f\" must be 'tasks' or 'ranges', not 'range'$",
        ),
        ({"storage": 1}, "must be 'tasks' or 'ranges', not 1"),
        ({"storage": ["tasks"]}, "must be 'tasks' or 'ranges'"),
        ({"batch": 0}, "^batch must be greater than or equal to 1$"),
        ({"batch": 2.0}, "^batch must be an integer, not float$"),
        ({"batch": True}, "^batch must be an integer, not bool$"),
        ({"batch": 2**31}, "^batch must be less than or equal to"),
        ({"barrier": 0}, "must be True or False, not int"),
        ({"barrier": False}, "needs a map to begin with, yet it is a map over the run's input"),
        ({"barrier": False, "over": "a"}, 'yet it is a map over "a", which is not a map'),
        ({"barrier": False, "over": "p", "when": {}}, "cannot be used with a condition"),
        ({"barrier": False, "over": "p", "unless": {"a": 1}}, "cannot be used with a condition"),
        (
            {"barrier": False, "over": "p", "storage": "tasks"},
            r"is for maps in ranges, yet step \"m\" of flow",
        ),
        ({"barrier": False, "over": "t"}, r"is for maps in ranges, yet its parent, step \"t\", has"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], text: str) -> None:
    flow = Flow("f").array("a", list).map("p", double).map("t", double, storage="tasks")
    with pytest.raises(FlowDefinitionError, match=f"(?m){text}"):
        flow.map("m", double, **options)


def test_a_flow_in_tasks_has_no_map_without_a_barrier() -> None:
    with pytest.raises(FlowDefinitionError, match='has storage="tasks"'):
        chain("tasks", barrier=False)
    with pytest.raises(FlowDefinitionError, match=r'storage of Flow "f" must be') as caught:
        Flow("f", storage="rangs")  # type: ignore[arg-type]
    assert caught.value.hint == "Did you mean ranges?"


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT_STORAGE in ("tasks", "ranges")
