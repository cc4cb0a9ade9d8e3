"""What steps require that no worker serves."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists
from pgflow_mp.observe.run_reports import RunDetails, RunReport
from pgflow_mp.observe.worker_reports import FlowReport

Unserved = TypeVar("Unserved", RunReport, RunDetails, FlowReport)


def explained(conn: Connection, reports: list[Unserved]) -> list[Unserved]:
    """The reports with what steps require that no worker serves; nothing is asked where there are none."""
    flows = {report.flow_slug for report in reports if report.unserved}
    if not flows:
        return reports
    required = lists.list_requirements(conn, flows)
    return [
        msgspec.structs.replace(
            report,
            lacking={
                step: required[report.flow_slug, step]
                for step in report.unserved
                if (report.flow_slug, step) in required
            },
        )
        for report in reports
    ]
