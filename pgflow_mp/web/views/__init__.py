"""A function for each page: a connection and a question in, a template with its values out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from pgflow_mp.db.engine import Connection
from pgflow_mp.web.questions import FLOW, INDEX, RUN, STEP, WORKER, Matcher, PageQuery, pattern
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.views import (
    failures_page,
    flow_pages,
    item_page,
    overview,
    run_page,
    runs_page,
    schedules_page,
    step_page,
    worker_pages,
)

View = Callable[[Connection, PageQuery], Drawn]


class KnownPage(NamedTuple):
    """Which paths it has, what draws it, and the entry of the menu that is marked meanwhile."""

    matches: Matcher
    view: View
    menu: str


PAGES: Final = (
    KnownPage(pattern("/"), overview.overview, "/"),
    KnownPage(pattern("/runs"), runs_page.runs, "/runs"),
    KnownPage(pattern(f"/runs/{RUN}"), run_page.run, "/runs"),
    KnownPage(pattern(f"/runs/{RUN}/failures/{STEP}"), failures_page.failures, "/runs"),
    KnownPage(pattern(f"/runs/{RUN}/steps/{STEP}"), step_page.step, "/runs"),
    KnownPage(pattern(f"/runs/{RUN}/steps/{STEP}/{INDEX}"), item_page.item, "/runs"),
    KnownPage(pattern("/workers"), worker_pages.workers, "/workers"),
    KnownPage(pattern(f"/workers/{WORKER}"), worker_pages.worker, "/workers"),
    KnownPage(pattern("/flows"), flow_pages.flows, "/flows"),
    KnownPage(pattern(f"/flows/{FLOW}"), flow_pages.flow, "/flows"),
    KnownPage(pattern("/schedules"), schedules_page.schedules, "/schedules"),
)
