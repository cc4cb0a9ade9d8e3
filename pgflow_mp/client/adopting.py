"""Runs that are gone on with from Python get the steps that the code has got since they were started."""

from __future__ import annotations

import contextlib

import msgspec
import psycopg

from pgflow_mp.db import definitions, engine, later_steps, schema
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.shapes import definition


def adopt(dsn: str, flow: Flow, run_id: str, how: str) -> None:
    """Extend the stored flow, and give the run its new steps, where it lacks any and has not failed.

    ``how`` is as of ``--compile``. A role that may not do that leaves it as it is, and so does a flow that
    differs otherwise: whoever works on it is told. Raises InputError where a step cannot be added.
    """
    with (
        Keeper(dsn, prepare=schema.check) as keeper,
        contextlib.suppress(psycopg.errors.InsufficientPrivilege),
    ):
        conn = keeper.begin()
        run = engine.get_run(conn, run_id)
        if run is None or run.flow_slug != flow.slug or run.status == "failed":
            return
        if not later_steps.are_lacking(conn, run_id, flow.steps):
            return
        if how != "skip":
            shape = msgspec.json.encode(definition(flow))
            found = definitions.ensure(conn, flow.slug, shape, queue_mode=flow.queues, how=how)
            if found.status == "mismatch":
                return
        later_steps.add(conn, run_id)
