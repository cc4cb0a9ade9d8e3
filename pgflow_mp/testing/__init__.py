"""Tools for testing flows: run one in this process, break it on purpose, lend it a database.

::

    from pgflow_mp.testing import run_inline

    def test_total() -> None:
        assert run_inline(flow, ["a b", "c"]) == {"total": 3}

``run_inline`` and ``execute_inline`` need neither a database nor processes and take milliseconds;
``Faults`` makes handlers fail, hang, or kill their process, the same way in every test run;
``FakeClock`` stands for time; ``temporary_database`` and ``database_fixture`` lend a throw-away PostgreSQL
with the schema installed to tests that want the real thing (``pgflow_mp.run``, ``Client``, a worker).
"""

from __future__ import annotations

from pgflow_mp.testing.audit import audit_run
from pgflow_mp.testing.clock import FakeClock
from pgflow_mp.testing.faults import Fault, FaultInjected, Faults, SimulatedCrash, SimulatedTimeout
from pgflow_mp.testing.inline import InlineRun, InlineStep, execute_inline, run_inline
from pgflow_mp.testing.throwaway import database_fixture, temporary_database

__all__ = [
    "FakeClock",
    "Fault",
    "FaultInjected",
    "Faults",
    "InlineRun",
    "InlineStep",
    "SimulatedCrash",
    "SimulatedTimeout",
    "audit_run",
    "database_fixture",
    "execute_inline",
    "run_inline",
    "temporary_database",
]
