"""Durable, CPU-heavy batch work in Python on nothing but PostgreSQL.

Write a flow    Flow: @flow.step, @flow.map, @flow.array, @flow.on_start
                output_of, input_of, value_of: defaults of parameters
                Context, Artifact, Failed
Types           Flow[Input], StepFunction, MapFunction, Json
Run it here     run(flow, input); flow.imap(items) yields FinishedItem
Test it         pgflow_mp.testing: run_inline(flow, input)
Plain jobs      QueueWorker(function, queue, retry=Exponential()); Fixed
From a program  Client, and AsyncClient with the same methods:
  start         start_flow, start, enqueue, enqueue_many
  follow        wait, as_completed, events, progress
  look          run, get_run, runs, report, html_report, steps, items,
                failures, results, indexed_results, workers, stacks, flows
  steer         cancel, retry, retry_failed, pause, resume, drain, delete,
                prune, close
  by the clock  schedule, schedules, backfill, pause_schedule,
                resume_schedule, delete_schedule
Errors          PgflowError: InputError, RunFailed, WaitTimeout and more
                PermanentError is for functions of a flow to raise

help(pgflow_mp.Client.runs) tells of one method; commands: pgflow-mp --help
This imports no database driver: worker processes do without one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"] and "pgflow_mp" in sys.orig_argv:  # our own program is about to start
    from pgflow_mp import paths

    paths.demote(0)  # a file json.py in the working directory would be what we import

from pgflow_mp.errors import (
    ArtifactError,
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
    FlowDefinitionError,
    FlowFileError,
    FlowNotFound,
    InputError,
    OnStartFailed,
    PermanentError,
    PgflowError,
    RunFailed,
    RunNotFound,
    SchemaError,
    ShapeMismatch,
    WaitTimeout,
)

if TYPE_CHECKING:
    from pgflow_mp.client import AsyncClient, Client
    from pgflow_mp.client.job_retries import Exponential, Fixed
    from pgflow_mp.client.queue_worker import QueueWorker
    from pgflow_mp.flows.context import Context
    from pgflow_mp.flows.defaults import input_of, output_of, value_of
    from pgflow_mp.flows.failures import Failed
    from pgflow_mp.flows.finished_item import FinishedItem
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.typed import MapFunction, StepFunction
    from pgflow_mp.runner import run
    from pgflow_mp.values.artifacts import Artifact
    from pgflow_mp.values.json_values import Json

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "ArtifactError",
    "AsyncClient",
    "Client",
    "ConfigError",
    "Context",
    "DatabaseError",
    "DatabaseUnavailable",
    "Exponential",
    "Failed",
    "FinishedItem",
    "Fixed",
    "Flow",
    "FlowDefinitionError",
    "FlowFileError",
    "FlowNotFound",
    "InputError",
    "Json",
    "MapFunction",
    "OnStartFailed",
    "PermanentError",
    "PgflowError",
    "QueueWorker",
    "RunFailed",
    "RunNotFound",
    "SchemaError",
    "ShapeMismatch",
    "StepFunction",
    "WaitTimeout",
    "input_of",
    "output_of",
    "run",
    "value_of",
]

_LAZY = {
    "Artifact": "pgflow_mp.values.artifacts",
    "AsyncClient": "pgflow_mp.client",
    "Client": "pgflow_mp.client",
    "Context": "pgflow_mp.flows.context",
    "Exponential": "pgflow_mp.client.job_retries",
    "Failed": "pgflow_mp.flows.failures",
    "FinishedItem": "pgflow_mp.flows.finished_item",
    "Fixed": "pgflow_mp.client.job_retries",
    "Flow": "pgflow_mp.flows.flow",
    "Json": "pgflow_mp.values.json_values",
    "MapFunction": "pgflow_mp.flows.typed",
    "QueueWorker": "pgflow_mp.client.queue_worker",
    "StepFunction": "pgflow_mp.flows.typed",
    "input_of": "pgflow_mp.flows.defaults",
    "output_of": "pgflow_mp.flows.defaults",
    "run": "pgflow_mp.runner",
    "value_of": "pgflow_mp.flows.defaults",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
