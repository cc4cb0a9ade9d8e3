"""How the maps of a benchmark's flows are stored: a row an item ("tasks"), or one row for many ("ranges")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pgflow_mp.bench.findings import Bar
from pgflow_mp.bench.measure import Samples, ratio
from pgflow_mp.bench.served import FLOWS
from pgflow_mp.db import engine
from pgflow_mp.errors import PgflowError
from pgflow_mp.flows.options import STORAGES
from pgflow_mp.loading.finding import load_flows

TASKS: Final = "tasks"
RANGES: Final = "ranges"
RATIO: Final = f"{RANGES} / {TASKS}"

_SET: Final = """
insert into pgflow.step_policies (flow_slug, step_slug, storage)
select s.flow_slug, s.step_slug, %s
from pgflow.steps s
where s.flow_slug = any (%s) and s.step_type = 'map'
on conflict (flow_slug, step_slug) do update set storage = excluded.storage
"""
_OTHERS: Final = """
select count(*)
from pgflow.steps s
left join pgflow.step_policies p on p.flow_slug = s.flow_slug and p.step_slug = s.step_slug
where s.flow_slug = any (%s) and s.step_type = 'map' and coalesce(p.storage, 'tasks') <> %s
"""


def store(conn: engine.Connection, slugs: Sequence[str], storage: str) -> None:
    """Create flows of the benchmark whose maps are stored like this."""
    for flow in load_flows(FLOWS):
        if flow.slug in slugs:
            engine.ensure_flow_compiled(conn, flow.slug, msgspec.json.encode(flow.shape()))
    conn.execute(_SET, (storage, list(slugs)))


def check(conn: engine.Connection, slugs: Sequence[str], storage: str) -> None:
    """Raises PgflowError if the maps are stored otherwise: figures would be another storage's."""
    others = (conn.execute(_OTHERS, (list(slugs), storage)).fetchone() or (0,))[0]
    if others:
        raise PgflowError(f"The maps of the benchmark are not stored as {storage}, as they were told to be")


def rates(seconds: dict[str, Samples]) -> Samples | None:
    """How many times as fast ranges are, round by round; None unless both were measured."""
    return ratio(seconds[TASKS], seconds[RANGES]) if set(STORAGES) <= set(seconds) else None


def times_bar(what: str, seconds: dict[str, Samples], limit: float) -> list[Bar]:
    """The bar on ``rates``, where both storages were measured."""
    found = rates(seconds)
    return [] if found is None else [Bar.at_least(f"{what}: {RATIO}", found.median, limit, "{:.2f}")]
