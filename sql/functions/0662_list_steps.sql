-- Ours: the steps of runs as reports tell them. Numbers of items come from counters, and from rows only of what is
-- worked on or waits at this moment.

-- Whether a worker that is registered gives the signs of life it promised; of other clients, which promise none, a
-- sign within the last minute.
create or replace function pgflow._is_alive(worker pgflow.workers)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select (worker).stopped_at is null
    and (worker).last_heartbeat_at > clock_timestamp() - coalesce((worker).dead_after, interval '1 minute');
$$;

-- Of the steps of these runs that are under way: how many items are in the hands of a worker (running), how many wait
-- for their next attempt (waiting), and when the first of these is due. Found by their messages that are not visible
-- now: the queue, which has the open tasks only, is looked through, and of tasks no more than these are read.
create or replace function pgflow._open_items(run_ids uuid[])
returns table (run_id uuid, step_slug text, running bigint, waiting bigint, next_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_queue text;
  v_table text;
begin
  return query
    select g.run_id, g.step_slug, sum(g.end_index - g.first_index), 0::bigint, null::timestamptz
    from (select distinct u.id from unnest(run_ids) u (id)) u
    join pgflow.ranges g on g.run_id = u.id and g.worker_id is not null
    group by g.run_id, g.step_slug;
  for v_queue in
    select distinct s.queue_name
    from pgflow.step_states ss
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where ss.run_id = any (run_ids) and ss.status = 'started'
  loop
    v_table := pgmq.format_table_name(v_queue, 'q');
    begin
      return query execute format(
        $sql$
        select t.run_id, t.step_slug,
          count(*) filter (where t.status = 'started'),
          count(*) filter (where t.status = 'queued' and t.attempts_count > 0),
          min(q.vt) filter (where t.status = 'queued' and t.attempts_count > 0)
        from pgmq.%I q
        cross join lateral ( -- from the message to its task, whatever the statistics say
          select t.run_id, t.step_slug, t.status, t.attempts_count
          from pgflow.step_tasks t
          where t.queue_name = $1 and t.message_id = q.msg_id
          offset 0
        ) t
        where q.vt > $3 and t.run_id = any ($2)
        group by t.run_id, t.step_slug
        $sql$,
        v_table
      ) using v_queue, run_ids, clock_timestamp();
    exception when undefined_table then
      null; -- dropped with its flow, maybe while it was waited for
    end;
  end loop;
end;
$$;

-- Of a step: items that failed for good, items that ended unfinished with their run or step, and attempts besides
-- those of items that are completed or in the hands of a worker. All of it from counters.
create or replace function pgflow._counted_ends(run_id uuid, step_slug text)
returns table (failed bigint, unfinished bigint, lost_attempts bigint)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select ss.failed_tasks::bigint,
    case
      when ss.started_at is null then 0
      when ss.status = 'skipped' then coalesce(c.left_tasks, 0) - coalesce(c.uncounted_failures, 0)
      when ss.status = 'failed' or (ss.status = 'started' and r.status = 'failed')
        then coalesce(ss.remaining_tasks, 0) - coalesce(c.uncounted_failures, 0)
      else 0
    end::bigint,
    coalesce(c.lost_attempts, 0) - case
      when exists (select 1 from pgflow.range_maps m where m.run_id = ss.run_id and m.step_slug = ss.step_slug) then 0
      else coalesce(
        (select u.taken from pgflow.reuses u where u.run_id = ss.run_id and u.step_slug = ss.step_slug), 0
      )
    end
  from pgflow.step_states ss
  join pgflow.runs r on r.run_id = ss.run_id
  left join pgflow.step_counts c on c.run_id = ss.run_id and c.step_slug = ss.step_slug
  where ss.run_id = _counted_ends.run_id and ss.step_slug = _counted_ends.step_slug;
$$;

-- The same of a run that was started before there were counters of it: its tasks are looked at.
create or replace function pgflow._ends_by_rows(run_id uuid, step_slug text)
returns table (failed bigint, unfinished bigint, lost_attempts bigint)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select coalesce(e.failed, ss.failed_tasks), coalesce(e.cancelled + e.skipped, 0), t.lost
  from pgflow.step_states ss
  join pgflow.runs r on r.run_id = ss.run_id
  left join lateral (
    select y.* from pgflow._step_tallies(ss.run_id, ss.step_slug) y
    where ss.status = 'skipped' or (r.status = 'failed' and ss.status in ('started', 'failed'))
  ) e on true
  cross join lateral (
    select coalesce(
      sum(t.attempts_count - case when t.status in ('completed', 'started') then 1 else 0 end), 0
    )::bigint as lost
    from pgflow.step_tasks t
    where t.run_id = ss.run_id and t.step_slug = ss.step_slug and ss.started_at is not null
  ) t
  where ss.run_id = _ends_by_rows.run_id and ss.step_slug = _ends_by_rows.step_slug;
$$;

-- The steps of these runs, by run in definition order. Items: initial_tasks of a step that has started; done of them
-- are those that are not among remaining_tasks. failed: for good. cancelled, skipped: ended unfinished with their run,
-- with their step. lost_attempts: those that ended
-- without a result. workers: how many of those alive take items of the step.
create or replace function pgflow.list_steps(run_ids uuid[])
returns table (
  run_id uuid,
  step_slug text,
  step_type text,
  depends_on text[],
  storage text,
  status text,
  initial_tasks int,
  remaining_tasks int,
  completed bigint,
  failed bigint,
  running bigint,
  waiting bigint,
  cancelled bigint,
  skipped bigint,
  lost_attempts bigint,
  next_in float8,
  workers int,
  error_message text,
  skip_reason text,
  started_at timestamptz,
  finished_at timestamptz
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('list_steps');
  v_counted_since timestamptz := (select i.attempts_counted_since from pgflow.installation i);
begin
  run_ids := array(
    select r.run_id from pgflow.runs r
    where r.run_id = any (run_ids) and coalesce(r.flow_slug = any (v_flows), true)
  );
  return query
  with open_items as materialized (
    select o.run_id, o.step_slug, sum(o.running)::bigint as running, sum(o.waiting)::bigint as waiting,
      min(o.next_at) as next_at
    from pgflow._open_items(
      array(select r.run_id from pgflow.runs r where r.run_id = any (run_ids) and r.status = 'started')
    ) o
    group by o.run_id, o.step_slug
  ),
  alive as materialized (
    select w.queue_name, w.labels, count(*)::int as workers, count(w.dead_after)::int as ours
    from pgflow.workers w
    where w.last_heartbeat_at > clock_timestamp() - interval '1 hour'
      and pgflow._is_alive(w)
      and w.deprecated_at is null
    group by w.queue_name, w.labels
  )
  select ss.run_id, ss.step_slug, s.step_type,
    array(
      select d.dep_slug
      from pgflow.deps d
      join pgflow.steps p on p.flow_slug = d.flow_slug and p.step_slug = d.dep_slug
      where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug
      order by p.step_index
    ),
    case
      when s.step_type <> 'map' then null
      when m.run_id is not null then 'ranges'
      when ss.started_at is not null then 'tasks'
      else coalesce(y.storage, 'tasks')
    end,
    ss.status, ss.initial_tasks, ss.remaining_tasks,
    case
      when ss.started_at is null then 0
      else ss.initial_tasks - e.failed - e.unfinished
        - case when r.status = 'started' and ss.status = 'started' then coalesce(ss.remaining_tasks, 0) else 0 end
    end,
    e.failed, coalesce(o.running, 0), coalesce(o.waiting, 0),
    case when ss.status = 'skipped' then 0 else e.unfinished end,
    case when ss.status = 'skipped' then e.unfinished else 0 end,
    e.lost_attempts,
    case when o.next_at is not null then greatest(extract(epoch from o.next_at - clock_timestamp()), 0)::float8 end,
    coalesce(case when coalesce(m.run_id is not null, y.storage = 'ranges') then v.ours else v.workers end, 0),
    ss.error_message, ss.skip_reason, ss.started_at,
    coalesce(ss.completed_at, ss.failed_at, ss.skipped_at)
  from pgflow.runs r
  join pgflow.step_states ss on ss.run_id = r.run_id
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  left join pgflow.step_policies y on y.flow_slug = ss.flow_slug and y.step_slug = ss.step_slug
  left join pgflow.range_maps m on m.run_id = ss.run_id and m.step_slug = ss.step_slug
  left join open_items o on o.run_id = ss.run_id and o.step_slug = ss.step_slug
  left join pgflow.step_requirements q on q.flow_slug = ss.flow_slug and q.step_slug = ss.step_slug
  cross join lateral (
    select sum(a.workers)::int as workers, sum(a.ours)::int as ours
    from alive a
    where a.queue_name = s.queue_name and (q.labels is null or q.labels <@ a.labels)
  ) v
  cross join lateral (
    select x.* from pgflow._counted_ends(ss.run_id, ss.step_slug) x
    where r.started_at >= v_counted_since
    union all
    select x.* from pgflow._ends_by_rows(ss.run_id, ss.step_slug) x
    where r.started_at < v_counted_since
  ) e
  where r.run_id = any (run_ids)
  order by r.run_id, s.step_index;
end;
$$;
