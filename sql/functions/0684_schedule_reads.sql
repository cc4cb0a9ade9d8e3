-- Ours: schedules as people read them, of the flows that the caller may use.

-- Schedules, of a flow, or the one of this name: when their next runs start, and what became of the last.
create or replace function pgflow.schedules(flow_slug text default null, name text default null)
returns table (
  flow_slug text,
  name text,
  cron text,
  time_zone text,
  missed text,
  priority int,
  due_as text,
  owner text,
  created_at timestamptz,
  changed_at timestamptz,
  paused_at timestamptz,
  problem text,
  next_at timestamptz,
  next_local text,
  asked int,
  last_at timestamptz,
  last_state text,
  last_run_id uuid,
  last_run_status text,
  last_error text,
  last_handled_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.flow_slug, s.name, s.cron, s.time_zone, s.missed, s.priority, s.due_as,
    pg_get_userbyid(s.owner_id)::text, s.created_at, s.changed_at, s.paused_at, s.problem,
    n.due_at, n.local_time,
    (
      select count(*)::int from pgflow.schedule_times a
      where a.schedule_id = s.schedule_id and a.state = 'planned' and a.asked_at is not null
    ),
    l.due_at, l.state, l.run_id, (select r.status from pgflow.runs r where r.run_id = l.run_id), l.error, l.handled_at
  from pgflow.schedules s
  left join lateral (
    select t.due_at, t.local_time
    from pgflow.schedule_times t
    where t.schedule_id = s.schedule_id and t.state = 'planned' and t.asked_at is null and s.paused_at is null
    order by t.due_at
    limit 1
  ) n on true
  left join lateral (
    select t.due_at, t.state, t.run_id, t.error, t.handled_at
    from pgflow.schedule_times t
    where t.schedule_id = s.schedule_id and t.state <> 'planned'
    order by t.handled_at desc, t.due_at desc
    limit 1
  ) l on true
  where (schedules.flow_slug is null or s.flow_slug = schedules.flow_slug)
    and (schedules.name is null or s.name = schedules.name)
    and coalesce(s.flow_slug = any ((select pgflow._granted_flows('schedules'))::text[]), true)
  order by s.flow_slug, s.name;
$$;

-- The input that a schedule starts its runs with.
create or replace function pgflow.schedule_input(flow_slug text, name text)
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.input
  from pgflow.schedules s
  where s.flow_slug = schedule_input.flow_slug
    and s.name = schedule_input.name
    and coalesce(s.flow_slug = any ((select pgflow._granted_flows('schedule_input'))::text[]), true);
$$;

-- What is planned, from the next on, or what became of what was due, from the last on.
create or replace function pgflow.schedule_times(flow_slug text, name text, is_planned boolean, max_rows int default 20)
returns table (
  due_at timestamptz,
  local_time text,
  state text,
  is_backfill boolean,
  handled_at timestamptz,
  run_id uuid,
  run_status text,
  error text
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.due_at, t.local_time, t.state, t.asked_at is not null, t.handled_at, t.run_id,
    (select r.status from pgflow.runs r where r.run_id = t.run_id), t.error
  from pgflow.schedules s
  join pgflow.schedule_times t on t.schedule_id = s.schedule_id
  where s.flow_slug = schedule_times.flow_slug
    and s.name = schedule_times.name
    and (t.state = 'planned') = is_planned
    and coalesce(s.flow_slug = any ((select pgflow._granted_flows('schedule_times'))::text[]), true)
  order by t.handled_at desc nulls last, case when is_planned then t.due_at end, t.due_at desc
  limit least(greatest(max_rows, 0), 1000);
$$;
