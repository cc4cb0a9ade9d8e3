-- Ours: workers and flows as reports tell them, page by page.

-- What is registered as a worker of the flows that the caller may use, those alive first, then the last ones, at most
-- so many; all of it behind the one with this sign of life and id.
create or replace function pgflow.list_workers(
  alive_only boolean default true,
  before_at timestamptz default null,
  before_id uuid default null,
  max_rows int default 200
)
returns table (
  worker_id uuid,
  queue_name text,
  flow text,
  name text,
  version text,
  started_at timestamptz,
  last_heartbeat_at timestamptz,
  dead_after float8,
  is_alive boolean,
  is_deprecated boolean,
  stopped_at timestamptz,
  died_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select w.worker_id, w.queue_name,
    coalesce(
      (select f.flow_slug from pgflow.flows f where lower(f.flow_slug) = w.queue_name),
      (select s.flow_slug from pgflow.steps s where s.queue_name = w.queue_name limit 1)
    ),
    w.function_name, w.pgflow_version, w.started_at, w.last_heartbeat_at,
    extract(epoch from w.dead_after)::float8, pgflow._is_alive(w), w.deprecated_at is not null, w.stopped_at, w.died_at
  from pgflow.workers w
  where w.queue_name <> ''
    and coalesce(w.queue_name = any ((select pgflow._granted_queues('list_workers'))::text[]), true)
    and (
      not alive_only
      or w.last_heartbeat_at > clock_timestamp() - interval '1 hour' and pgflow._is_alive(w)
    )
    and (before_at is null or (w.last_heartbeat_at, w.worker_id) < (before_at, before_id))
  order by w.last_heartbeat_at desc, w.worker_id desc
  limit max_rows;
$$;

-- Flows by their slugs, at most so many, behind one of them: how many runs are under way, how many have not ended for
-- how long, and how many workers alive serve their queues.
create or replace function pgflow.list_flows(after text default '', max_rows int default 200)
returns table (
  flow text,
  created_at timestamptz,
  steps text[],
  queue_mode text,
  max_attempts int,
  base_delay int,
  timeout int,
  active bigint,
  oldest_started_at timestamptz,
  last_started_at timestamptz,
  workers int,
  unserved text[],
  is_paused boolean
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  with alive as materialized (
    select w.queue_name, w.labels, count(*)::int as workers
    from pgflow.workers w
    where w.last_heartbeat_at > clock_timestamp() - interval '1 hour'
      and pgflow._is_alive(w)
      and w.deprecated_at is null
    group by w.queue_name, w.labels
  )
  select f.flow_slug, f.created_at,
    array(select s.step_slug from pgflow.steps s where s.flow_slug = f.flow_slug order by s.step_index),
    f.queue_mode, f.opt_max_attempts, f.opt_base_delay, f.opt_timeout,
    u.active, u.oldest,
    (
      select r.started_at from pgflow.runs r
      where r.flow_slug = f.flow_slug order by r.started_at desc, r.run_id desc limit 1
    ),
    coalesce(
      (
        select max(q.workers)
        from (
          select sum(a.workers)::int as workers
          from alive a
          where a.queue_name = lower(f.flow_slug)
            or a.queue_name in (select s.queue_name from pgflow.steps s where s.flow_slug = f.flow_slug)
          group by a.queue_name
        ) q
      ),
      0
    ),
    array(
      select s.step_slug
      from pgflow.steps s
      left join pgflow.step_requirements q on q.flow_slug = s.flow_slug and q.step_slug = s.step_slug
      where s.flow_slug = f.flow_slug
        and not exists (
          select 1 from alive a where a.queue_name = s.queue_name and (q.labels is null or q.labels <@ a.labels)
        )
      order by s.step_index
    ),
    exists (
      select 1 from pgflow.pauses z
      where z.flow_slug = f.flow_slug and z.run_id is null and (z.until is null or z.until > clock_timestamp())
    )
  from (
    select * from pgflow.flows f
    where f.flow_slug collate "C" > after collate "C"
      and coalesce(f.flow_slug = any ((select pgflow._granted_flows('list_flows'))::text[]), true)
    order by f.flow_slug collate "C"
    limit max_rows
  ) f
  cross join lateral (
    select count(*) as active, min(r.started_at) as oldest
    from pgflow.runs r
    where r.flow_slug = f.flow_slug and r.status = 'started'
  ) u
  order by f.flow_slug collate "C";
$$;

-- What is worked on of these flows now: runs with items in the hands of a worker, runs of which all that is left waits
-- for its next attempt, and how many items both are; and runs that have ended since, how.
create or replace function pgflow.flow_activity(flow_slugs text[], since timestamptz)
returns table (
  flow text,
  running_runs bigint,
  waiting_runs bigint,
  running_items bigint,
  waiting_items bigint,
  next_in float8,
  completed_since bigint,
  failed_since bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('flow_activity');
  v_queue text;
  v_table text;
  v_runs uuid[] := '{}';
  v_running bigint[] := '{}';
  v_waiting bigint[] := '{}';
  v_next timestamptz[] := '{}';
  v_some record;
begin
  flow_slugs := array(
    select f.slug from unnest(flow_slugs) f (slug) where coalesce(f.slug = any (v_flows), true)
  );
  for v_queue in select distinct s.queue_name from pgflow.steps s where s.flow_slug = any (flow_slugs) loop
    v_table := pgmq.format_table_name(v_queue, 'q');
    begin
      execute format(
        $sql$
        select array_agg(o.run_id) as runs, array_agg(o.running) as running, array_agg(o.waiting) as waiting,
          array_agg(o.next_at) as next_at
        from (
          select t.run_id, count(*) filter (where t.status = 'started') as running,
            count(*) filter (where t.status = 'queued' and t.attempts_count > 0) as waiting,
            min(q.vt) filter (where t.status = 'queued' and t.attempts_count > 0) as next_at
          from pgmq.%I q
          cross join lateral ( -- from the message to its task, whatever the statistics say
            select t.run_id, t.step_slug, t.status, t.attempts_count
            from pgflow.step_tasks t
            where t.queue_name = $1 and t.message_id = q.msg_id
            offset 0
          ) t
          where q.vt > $2
          group by t.run_id
        ) o
        $sql$,
        v_table
      ) into v_some using v_queue, clock_timestamp();
    exception when undefined_table then
      continue; -- dropped with its flow, maybe while it was waited for
    end;
    v_runs := v_runs || coalesce(v_some.runs, '{}');
    v_running := v_running || coalesce(v_some.running, '{}');
    v_waiting := v_waiting || coalesce(v_some.waiting, '{}');
    v_next := v_next || coalesce(v_some.next_at, '{}');
  end loop;
  return query
  with open_items as (
    select u.run_id, u.running, u.waiting, u.next_at
    from unnest(v_runs, v_running, v_waiting, v_next) u (run_id, running, waiting, next_at)
    union all
    select g.run_id, sum(g.end_index - g.first_index), 0, null
    from pgflow.ranges g
    where g.worker_id is not null
    group by g.run_id
  ),
  busy as (
    select r.run_id, r.flow_slug, o.running, o.waiting, o.next_at,
      (
        select sum(ss.remaining_tasks) from pgflow.step_states ss
        where ss.run_id = r.run_id and ss.status = 'started'
      ) as remaining
    from (
      select o.run_id, sum(o.running) as running, sum(o.waiting) as waiting, min(o.next_at) as next_at
      from open_items o
      group by o.run_id
    ) o
    join pgflow.runs r on r.run_id = o.run_id
    where r.status = 'started' and r.flow_slug = any (flow_slugs)
  )
  select f.slug,
    count(*) filter (where b.running > 0),
    count(*) filter (where b.running = 0 and b.waiting > 0 and b.waiting = b.remaining),
    coalesce(sum(b.running), 0)::bigint, coalesce(sum(b.waiting), 0)::bigint,
    case
      when min(b.next_at) is not null then greatest(extract(epoch from min(b.next_at) - clock_timestamp()), 0)::float8
    end,
    (
      select count(*) from pgflow.runs r
      where r.flow_slug = f.slug and r.started_at >= since and r.status = 'completed'
    ),
    (
      select count(*) from pgflow.runs r
      where r.flow_slug = f.slug and r.started_at >= since and r.status = 'failed'
    )
  from unnest(flow_slugs) with ordinality f (slug, n)
  left join busy b on b.flow_slug = f.slug
  group by f.slug, f.n
  order by f.n;
end;
$$;
