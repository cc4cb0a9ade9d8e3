-- Ours: what becomes of the tasks of workers that are over.

-- The tasks of a queue that these workers hold, found by the messages that were read: the queue has the open
-- tasks only, and no index on the tasks could tell their holder without costing every claim its HOT update.
create or replace function pgflow._tasks_held(queue_name text, worker_ids uuid[])
returns table (run_id uuid, step_slug text, task_index int)
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
#variable_conflict use_column
declare
  v_ids bigint[];
  v_queue text := pgmq.format_table_name(_tasks_held.queue_name, 'q');
begin
  begin
    execute format('select array_agg(q.msg_id) from pgmq.%I q where q.read_ct > 0', v_queue) into v_ids;
  exception when undefined_table then
    return; -- dropped with its flow, maybe while it was waited for
  end;
  return query
  select t.run_id, t.step_slug, t.task_index
  from unnest(v_ids) m (id)
  cross join lateral (
    select t.run_id, t.step_slug, t.task_index
    from pgflow.step_tasks t
    where t.queue_name = _tasks_held.queue_name
      and t.message_id = m.id
      and t.status = 'started'
      and t.permanently_stalled_at is null
      and t.last_worker_id = any (worker_ids)
    offset 0
  ) t;
end;
$$;

-- How many deaths condemn a task of this run: three, and from a dozen deaths on one more with each doubling:
-- there, workers die for reasons of their own. A death that led to a condemned task is explained.
create or replace function pgflow._deaths_to_condemn(flow_slug text, run_id uuid)
returns int
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_deaths int;
  v_explained int;
begin
  select count(*) into v_deaths
  from pgflow.runs r
  join pgflow.workers w
    on w.queue_name in (select s.queue_name from pgflow.steps s where s.flow_slug = r.flow_slug)
    and w.died_at >= r.started_at
  where r.run_id = _deaths_to_condemn.run_id;

  select count(*) into v_explained
  from pgflow.step_tasks t
  where t.flow_slug = _deaths_to_condemn.flow_slug
    and t.worker_deaths >= 2
    and t.run_id = _deaths_to_condemn.run_id
    and t.condemned;

  return 3 + floor(log(2.0, greatest(v_deaths - v_explained, 6) / 6.0));
end;
$$;

-- Of these workers those that hold one task and nothing else: what they died with is to blame.
create or replace function pgflow._loners(worker_ids uuid[])
returns uuid[]
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
  select coalesce(array_agg(a.worker_id), '{}')
  from (
    select t.last_worker_id as worker_id
    from (
      select distinct s.queue_name
      from pgflow.steps s
      where exists (
        select 1 from pgflow.workers w
        where w.worker_id = any (worker_ids) and w.queue_name in (s.queue_name, '')
      )
      offset 0
    ) q
    cross join lateral pgflow._tasks_held(q.queue_name, worker_ids) h
    cross join lateral (
      select t.last_worker_id
      from pgflow.step_tasks t
      where t.run_id = h.run_id and t.step_slug = h.step_slug and t.task_index = h.task_index
      offset 0
    ) t
    group by t.last_worker_id
    having count(*) = 1
  ) a
  where not exists (select 1 from pgflow.ranges g where g.worker_id = a.worker_id);
$$;

-- Queues again, uncharged, what these workers hold of a run, whose lock the caller has; how many tasks. What died
-- with one of alone often enough is condemned; with another it may have been that one's neighbour, and has to be run
-- alone (condemned is false), unless it gets no worker to itself.
create or replace function pgflow._take_over_run(
  flow_slug text,
  run_id uuid,
  step_slugs text[],
  indexes int[],
  worker_ids uuid[],
  died uuid[],
  alone uuid[]
)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
#variable_conflict use_column
declare
  v_most_beside_others constant int := 3; -- deaths more than what is needed
  v_needed int := pgflow._deaths_to_condemn(_take_over_run.flow_slug, _take_over_run.run_id);
  v_rows tid[];
  v_queues text[];
  v_ids bigint[];
begin
  -- Locked by one statement, changed by the next, each row looked up by its key: see _claim.
  select array_agg(l.row_id) into v_rows
  from (
    select u.step_slug, u.task_index
    from unnest(step_slugs, indexes) u (step_slug, task_index)
    where u.step_slug = any (array(
      select ss.step_slug from pgflow.step_states ss
      where ss.run_id = _take_over_run.run_id and ss.status = 'started'
    ))
    order by u.step_slug collate "C", u.task_index
  ) h
  cross join lateral (
    select t.ctid as row_id
    from pgflow.step_tasks t
    where t.run_id = _take_over_run.run_id
      and t.step_slug = h.step_slug
      and t.task_index = h.task_index
      and t.status = 'started'
      and t.permanently_stalled_at is null
      and t.last_worker_id = any (worker_ids)
    for update skip locked
  ) l;

  with requeued as (
    update pgflow.step_tasks t
    set status = 'queued',
        started_at = null,
        last_worker_id = null,
        lease_until = null,
        last_requeued_at = now(),
        attempts_count = greatest(t.attempts_count - 1, 0),
        worker_deaths = case
          when t.last_worker_id = any (died) then coalesce(t.worker_deaths, 0) + 1
          else t.worker_deaths
        end,
        condemned = case
          when t.last_worker_id = any (died) and t.worker_deaths >= 2 and t.worker_deaths + 1 >= v_needed
          then t.last_worker_id = any (alone) or t.worker_deaths + 1 >= v_needed + v_most_beside_others
          else t.condemned
        end
    where t.ctid = any (v_rows)
    returning t.queue_name, t.message_id
  )
  select array_agg(q.queue_name order by q.message_id), array_agg(q.message_id order by q.message_id)
  into v_queues, v_ids
  from requeued q
  where q.message_id is not null;
  if v_ids is null then
    return 0;
  end if;

  perform pgflow._set_vt(v_queues, v_ids, array_fill(0, array[cardinality(v_ids)]));
  perform pg_notify('pgflow_work', _take_over_run.flow_slug);
  return cardinality(v_ids);
end;
$$;

-- Queues again what these workers hold, uncharged, and answers how much. All of them are over; those among
-- died did not say goodbye, and what they held is under suspicion. A worker that has been over for a while
-- has no claim under way any more that could still take tasks: it is not looked at again.
create or replace function pgflow._take_over(worker_ids uuid[], died uuid[])
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
declare
  v_run record;
  v_recovered int := 0;
  v_timeout text := current_setting('lock_timeout');
  v_locked boolean;
  v_left boolean := false;
  v_alone uuid[] := '{}';
begin
  if exists (
    select 1 from pgflow.step_tasks t
    where t.worker_deaths >= 2 and t.status = 'started' and t.last_worker_id = any (died)
  ) then
    v_alone := pgflow._loners(died);
  end if;
  update pgflow.workers w
  set stopped_at = coalesce(w.stopped_at, clock_timestamp()),
      died_at = case when w.worker_id = any (died) then clock_timestamp() else w.died_at end,
      recovered_at = case when w.stopped_at < clock_timestamp() - w.dead_after then clock_timestamp() end
  where w.worker_id = any (worker_ids);

  for v_run in
    select r.flow_slug, h.run_id, array_agg(h.step_slug) as step_slugs, array_agg(h.task_index) as indexes
    from (
      select distinct s.queue_name
      from pgflow.steps s
      where exists (
        select 1 from pgflow.workers w
        where w.worker_id = any (worker_ids) and w.queue_name in (s.queue_name, '')
      )
      offset 0
    ) q
    cross join lateral pgflow._tasks_held(q.queue_name, worker_ids) h
    cross join lateral ( -- by its key, whatever the statistics say
      select r.flow_slug from pgflow.runs r where r.run_id = h.run_id and r.status = 'started'
      offset 0
    ) r
    group by r.flow_slug, h.run_id
    order by h.run_id
  loop
    -- Somebody may keep a run locked, or something of it may be broken: that holds up the tasks of others no
    -- longer than this.
    begin
      perform set_config('lock_timeout', '500ms', true);
      perform 1 from pgflow.runs r where r.run_id = v_run.run_id and r.status = 'started' for update;
      v_locked := found;
      perform set_config('lock_timeout', v_timeout, true);
      if v_locked then
        v_recovered := v_recovered + pgflow._take_over_run(
          v_run.flow_slug, v_run.run_id, v_run.step_slugs, v_run.indexes, worker_ids, died, v_alone
        );
      end if;
    exception
      when lock_not_available then
        v_left := true;
      when others then
        v_left := true;
        perform pgflow._leave_run(v_run.run_id, 'taking over from dead workers', sqlstate, sqlerrm);
    end;
  end loop;
  select t.freed + v_recovered, t.is_left or v_left into v_recovered, v_left
  from pgflow._take_over_ranges(worker_ids, died) t;
  if v_left then
    update pgflow.workers w set recovered_at = null where w.worker_id = any (worker_ids);
  end if;
  return v_recovered;
end;
$$;
