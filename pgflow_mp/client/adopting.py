"""Runs that are gone on with from Python get the steps that the code has got since they were started."""

from __future__ import annotations

import contextlib

import psycopg

from pgflow_mp.client import keyed_runs
from pgflow_mp.db import engine, later_steps, schema
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import ask
from pgflow_mp.errors import ShapeMismatch
from pgflow_mp.flows.flow import Flow


def adopt(dsn: str, flow: Flow, run_id: str, how: str) -> None:
    """Extend the stored flow, and give the run its new steps, where it lacks any and has not failed.

    ``how`` is as of ``--compile``. A role that may not do that leaves it as it is, and so does a flow that
    differs otherwise: whoever works on it is told. Raises InputError where a step cannot be added.
    """

    def work(conn: Connection) -> None:
        run = engine.get_run(conn, run_id)
        if run is None or run.flow_slug != flow.slug or run.status == "failed":
            return
        if not later_steps.are_lacking(conn, run_id, flow.steps):
            return
        keyed_runs.ensure_flow(conn, flow, how)
        later_steps.add(conn, run_id)

    with contextlib.suppress(psycopg.errors.InsufficientPrivilege, ShapeMismatch):
        ask(dsn, work, prepare=schema.check)
