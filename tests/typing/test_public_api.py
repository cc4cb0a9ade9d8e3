"""The types of the public API: all are said, and none is Any but for a reason that is given here."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import public_api
import pytest
import type_checkers

from pgflow_mp import AsyncClient, Client, QueueWorker, runner
from pgflow_mp.client import streaming
from pgflow_mp.client.arguments import ResumeArguments, RunArguments, StartArguments, StartFlowArguments
from pgflow_mp.flows.run_options import ImapOptions, RunOptions, WorkerOptions
from pgflow_mp.worker.settings import WorkerSettings

ROWS = "rows of a database have the types that their columns have: so psycopg says it"
LIBRARY = "elements of an array or a frame of a library are what the library makes of them"
UNKNOWN = "of a slug nothing is known: as a default it fits every parameter"
REASONED = {
    "AnyArray.__call__(return)": LIBRARY,
    "AnyMapStep.__call__(return)": LIBRARY,
    "Context.connect(return)": ROWS,
    "EventLog.look(conn)": ROWS,
    "Flow.array(return)": LIBRARY,
    "RootArray.__call__(return)": LIBRARY,
    "Runtime.connect(return)": ROWS,
    "audit_run(conn)": ROWS,
    "output_of(return)": UNKNOWN,
    "value_of(return)": UNKNOWN,
}
"""Places that may hold an Any. Besides, ``Flow("slug")`` is a ``Flow[Any]``: its input is not said."""


def test_nothing_that_users_see_is_any_but_for_a_reason() -> None:
    classes, places = public_api.reachable()
    assert len(classes) > 100
    assert len(places) > 2000
    found = sorted({place.name for place in places if public_api.holds_any(place.hint)})
    assert found == sorted(REASONED)


@pytest.mark.slow
def test_every_type_of_the_public_api_is_known_to_whoever_imports_it() -> None:
    """py.typed is kept: no checker has to guess."""
    pytest.importorskip("pyright")
    report = json.loads(type_checkers.verify_types("pgflow_mp"))["typeCompleteness"]
    assert report["pyTypedPath"].endswith("pgflow_mp/py.typed")
    assert report["exportedSymbolCounts"]["withUnknownType"] == 0
    owners = {f"{each.__module__}.{each.__qualname__}" for each in public_api.reachable()[0]}
    owners |= set(public_api.MODULES)
    guessed = {
        symbol["name"]: [found["message"] for found in symbol["diagnostics"]]
        for symbol in report["symbols"]
        if symbol["name"] in owners or symbol["name"].rpartition(".")[0] in owners
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
    }
    assert guessed == {}


def _named(function: Callable[..., object]) -> set[str]:
    """What may be given by name only."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _keys(form: Any) -> set[str]:
    return set(form.__annotations__)


def test_forms_of_a_call_take_what_the_call_takes() -> None:
    """Where a call has several forms, what they share is written down for type checkers once more."""
    settings = {field.name for field in dataclasses.fields(WorkerSettings)}
    ours = {"dsn", "targets", "flows", "sys_path", "main_path", "shipped", "job", "contents"}
    assert _keys(RunOptions) == settings - ours - _named(runner.run)
    assert _keys(WorkerOptions) == settings - ours - _named(QueueWorker) - {"only"}
    assert _keys(RunArguments) == (_named(runner.run) - {"output"}) | _keys(RunOptions)
    assert _keys(ResumeArguments) == (_named(runner.resume) - {"output"}) | _keys(RunOptions)
    own = {"step", "ordered", "keep", "params"}
    assert _keys(ImapOptions) == (_named(streaming.imap) - own) | (_keys(RunOptions) - {"keep"})
    for client in (Client, AsyncClient):
        assert _keys(StartArguments) == _named(client.start) - {"params"}
        assert _keys(StartFlowArguments) == _named(client.start_flow)
