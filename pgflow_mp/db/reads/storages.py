"""How the maps of a run are stored (docs/ranges.md)."""

from __future__ import annotations

from uuid import UUID

from pgflow_mp.db import rights
from pgflow_mp.db.engine import Connection

_OF_RUN = """\
select ss.step_slug, case
    when m.run_id is not null then 'ranges'
    when ss.started_at is not null then 'tasks'
    else coalesce(p.storage, 'tasks')
  end
from pgflow.step_states ss
join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug and s.step_type = 'map'
left join pgflow.range_maps m on m.run_id = ss.run_id and m.step_slug = ss.step_slug
left join pgflow.step_policies p on p.flow_slug = ss.flow_slug and p.step_slug = ss.step_slug
where ss.run_id = %s::uuid"""


def storages(conn: Connection, run_id: str | UUID) -> dict[str, str]:
    """tasks or ranges by slug, of maps only: that under which each was started, else what it would be now.

    Nothing where our role has no rights on the tables.
    """
    rows = rights.read(conn, lambda conn: conn.execute(_OF_RUN, (str(run_id),)).fetchall(), lambda _conn: [])
    return dict(rows)
