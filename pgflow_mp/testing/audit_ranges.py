"""Counting again what a map in ranges has: its pages, ranges and exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import psycopg

_MAPS: Final = """
    select m.step_slug, ss.status, r.status as run_status, m.items, ss.initial_tasks, ss.remaining_tasks,
      ss.failed_tasks, ss.spawned_tasks, m.is_open, m.next_index,
      p.wrong as wrong_pages,
      t.failed, t.ended_without_page, t.open_with_page, t.differ,
      g.leased, g.free,
      p.items + t.without_page + g.leased + g.free + m.items - m.next_index as counted,
      (select coalesce(sum(upper(u) - lower(u)), 0) from unnest(c.span) u) as covered,
      case
        when ss.status = 'skipped' and m.source_step is not null then '{}' -- what its parent has done since
        else (int4multirange(int4range(0, m.items)) * e.span - c.span)::text
      end as missing,
      (c.span - int4multirange(int4range(0, m.items)))::text as beyond,
      p.items as in_pages,
      (case when m.source_step is null or ss.status = 'completed' then
        int4multirange(int4range(0, m.items)) - e.span else '{}' end)::text as without_element,
      e.items - (select coalesce(sum(upper(u) - lower(u)), 0) from unnest(e.span) u) as twice_elements,
      ss.output is null or ss.output = p.array as state_agrees,
      r.output is null or coalesce(jsonb_typeof(r.output -> m.step_slug), 'null') = 'null'
        or r.output -> m.step_slug = p.array as run_agrees
    from pgflow.range_maps m
    join pgflow.runs r on r.run_id = m.run_id
    join pgflow.step_states ss on ss.run_id = m.run_id and ss.step_slug = m.step_slug
    cross join lateral (
      select coalesce(sum(p.items), 0) as items,
        count(*) filter (where jsonb_array_length(p.body) <> p.items) as wrong,
        coalesce(range_agg(int4range(p.first_index, p.first_index + p.items)), '{}') as span,
        -- Only where there is one to compare it with: others may be too large to be made.
        case when ss.status = 'completed'
          and (ss.output is not null or coalesce(jsonb_typeof(r.output -> m.step_slug), 'null') <> 'null')
        then (
          select coalesce(jsonb_agg(v.value order by q.first_index, v.n), '[]'::jsonb)
          from pgflow.pages q, jsonb_array_elements(q.body) with ordinality v (value, n)
          where q.run_id = m.run_id and q.step_slug = m.step_slug and q.is_result
        ) end as array
      from pgflow.pages p
      where p.run_id = m.run_id and p.step_slug = m.step_slug and p.is_result
    ) p
    cross join lateral (
      select coalesce(range_agg(int4range(t.task_index, t.task_index + 1)), '{}') as span,
        count(*) filter (where t.status = 'failed') as failed,
        count(*) filter (where not t.task_index <@ p.span) as without_page,
        count(*) filter (where t.status in ('completed', 'failed') and not t.task_index <@ p.span)
          as ended_without_page,
        count(*) filter (where t.status not in ('completed', 'failed') and t.task_index <@ p.span)
          as open_with_page,
        count(*) filter (
          where t.task_index <@ p.span and coalesce(t.output, 'null'::jsonb) is distinct from (
            select q.body -> (t.task_index - q.first_index)
            from pgflow.pages q
            where q.run_id = t.run_id and q.step_slug = t.step_slug and q.is_result
              and q.first_index <= t.task_index
            order by q.first_index desc
            limit 1
          )
        ) as differ
      from pgflow.step_tasks t
      where t.run_id = m.run_id and t.step_slug = m.step_slug
    ) t
    cross join lateral (
      select coalesce(range_agg(int4range(g.first_index, g.end_index)), '{}') as span,
        coalesce(sum(g.end_index - g.first_index) filter (where g.worker_id is not null), 0) as leased,
        coalesce(sum(g.end_index - g.first_index) filter (where g.worker_id is null), 0) as free
      from pgflow.ranges g
      where g.run_id = m.run_id and g.step_slug = m.step_slug
    ) g
    cross join lateral (
      select coalesce(range_agg(int4range(e.first_index, e.first_index + e.items)), '{}') as span,
        coalesce(sum(e.items), 0) as items
      from pgflow.pages e
      where e.run_id = m.run_id
        and e.step_slug = coalesce(m.source_step, m.step_slug)
        and e.is_result = (m.source_step is not null)
    ) e
    cross join lateral (
      select p.span + t.span + g.span + int4multirange(int4range(m.next_index, m.items)) as span
    ) c
    where m.run_id = %(run)s::uuid
    order by m.step_slug
"""
_STRAYS: Final = """
    select count(*)
    from (
      select step_slug from pgflow.pages where run_id = %(run)s::uuid
      union all
      select step_slug from pgflow.ranges where run_id = %(run)s::uuid
    ) x
    where not exists (
      select 1 from pgflow.range_maps m where m.run_id = %(run)s::uuid and m.step_slug = x.step_slug
    ) and not (x.step_slug = '' and exists (select 1 from pgflow.loads l where l.run_id = %(run)s::uuid))
"""


class _Map(NamedTuple):
    """What was counted of one map; spans of indexes are PostgreSQL's multiranges as text."""

    step_slug: str
    status: str
    run_status: str
    items: int
    initial_tasks: int | None
    remaining_tasks: int | None
    failed_tasks: int
    spawned_tasks: int
    is_open: bool
    next_index: int
    wrong_pages: int
    failed: int
    ended_without_page: int
    open_with_page: int
    differ: int
    leased: int
    free: int
    counted: int
    covered: int
    missing: str
    beyond: str
    in_pages: int
    without_element: str
    twice_elements: int
    state_agrees: bool
    run_agrees: bool


def range_problems(conn: psycopg.Connection[Any], run_id: str) -> list[str]:
    """What is wrong with a run's maps in ranges: nothing, or a line for each thing.

    Every index is in exactly one place: a result page, a task, a range, or beyond what was ever leased; of a
    map that does not wait for its parent, those that the parent has a result for. What ended as a task may
    be in a page, too, with the same output, and has to be once the map is completed. Counters equal a
    recount, arrays the pages, and there is an element for each index. Of what has ended nothing is leased,
    nor open to be.
    """
    maps = [_Map._make(row) for row in conn.execute(_MAPS, {"run": run_id}).fetchall()]
    problems = [f"{each.step_slug}: {text}" for each in maps for text in _problems(each)]
    strays = conn.execute(_STRAYS, {"run": run_id}).fetchone()
    if strays is not None and strays[0]:
        problems.append(f"{strays[0]} pages and ranges of no map")
    return problems


def _problems(found: _Map) -> list[str]:
    under_way = found.status == "started" and found.run_status == "started"
    done = found.in_pages + found.ended_without_page
    texts = {
        f"{found.initial_tasks} tasks, {found.items} items": found.initial_tasks != found.items,
        f"{found.spawned_tasks} tasks spawned": found.spawned_tasks != 0,
        f"{found.wrong_pages} pages of another length than they say": found.wrong_pages,
        f"{found.counted - found.covered} items in two places": found.counted != found.covered,
        f"items {found.missing} are nowhere": found.missing != "{}",
        f"items {found.beyond} are more than there are": found.beyond != "{}",
        f"items {found.without_element} have no element": found.without_element != "{}",
        f"{found.twice_elements} elements in two pages": found.twice_elements,
        f"{found.open_with_page} open tasks with a result": found.open_with_page,
        f"{found.differ} tasks whose output is another in their page": found.differ,
    }
    if found.status == "completed":
        texts |= {
            f"completed with {found.in_pages} results of {found.items}": found.in_pages != found.items,
            f"completed, yet remaining_tasks is {found.remaining_tasks}": found.remaining_tasks != 0,
            f"completed with {found.leased + found.free} items in ranges": found.leased + found.free,
            "its output is not that of its pages": not found.state_agrees,
            "the run's output is not that of its pages": not found.run_agrees,
        }
    if under_way:
        texts |= {
            f"remaining_tasks is {found.remaining_tasks}, recounted {found.items - done}": (
                found.remaining_tasks != found.items - done
            ),
            "closed with items to be leased": not found.is_open
            and (found.free or found.next_index < found.items),
        }
    else:
        texts |= {f"over with {found.leased} items leased": found.leased, "over and open": found.is_open}
    if found.status in ("completed", "started"):
        count = f"failed_tasks is {found.failed_tasks}, recounted {found.failed}"
        texts[count] = found.failed_tasks != found.failed
    return [text for text, wrong in texts.items() if wrong]
