-- Ours: recovery by heartbeat. A worker that promised signs of life (dead_after) and broke its promise is
-- dead; its tasks are queued again at once and the attempt is not charged: the machine failed, not the
-- task. A task that three workers died with, the last time without another suspect beside it, is another
-- matter: it is condemned (0305_claim_tasks.sql hands it out to be failed).

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
  if to_regclass(format('pgmq.%I', v_queue)) is null then
    return;
  end if;
  execute format('select array_agg(q.msg_id) from pgmq.%I q where q.read_ct > 0', v_queue) into v_ids;
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
  v_needed int;
  v_rows tid[];
  v_queues text[];
  v_ids bigint[];
  v_recovered int := 0;
  v_timeout text := current_setting('lock_timeout');
  v_locked boolean;
  v_left boolean := false;
begin
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
    join pgflow.runs r on r.run_id = h.run_id and r.status = 'started'
    group by r.flow_slug, h.run_id
    order by h.run_id
  loop
    -- Somebody may keep a run locked: that holds up the tasks of others no longer than this.
    begin
      perform set_config('lock_timeout', '500ms', true);
      perform 1 from pgflow.runs r where r.run_id = v_run.run_id and r.status = 'started' for update;
      v_locked := found;
      perform set_config('lock_timeout', v_timeout, true);
    exception when lock_not_available then
      v_left := true;
      v_locked := false;
    end;
    continue when not v_locked;
    v_needed := pgflow._deaths_to_condemn(v_run.flow_slug, v_run.run_id);

    -- Locked by one statement, changed by the next, each row looked up by its key: see _claim.
    select array_agg(l.row_id) into v_rows
    from (
      select u.step_slug, u.task_index
      from unnest(v_run.step_slugs, v_run.indexes) u (step_slug, task_index)
      where u.step_slug = any (array(
        select ss.step_slug from pgflow.step_states ss
        where ss.run_id = v_run.run_id and ss.status = 'started'
      ))
      order by u.step_slug collate "C", u.task_index
    ) h
    cross join lateral (
      select t.ctid as row_id
      from pgflow.step_tasks t
      where t.run_id = v_run.run_id
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
            then true
            else t.condemned
          end
      where t.ctid = any (v_rows)
      returning t.queue_name, t.message_id
    )
    select array_agg(q.queue_name order by q.message_id), array_agg(q.message_id order by q.message_id)
    into v_queues, v_ids
    from requeued q
    where q.message_id is not null;

    if v_ids is not null then
      perform pgflow._set_vt(v_queues, v_ids, array_fill(0, array[cardinality(v_ids)]));
      perform pg_notify('pgflow_work', v_run.flow_slug);
      v_recovered := v_recovered + cardinality(v_ids);
    end if;
  end loop;
  select t.freed + v_recovered, t.is_left or v_left into v_recovered, v_left
  from pgflow._take_over_ranges(worker_ids, died) t;
  if v_left then
    update pgflow.workers w set recovered_at = null where w.worker_id = any (worker_ids);
  end if;
  return v_recovered;
end;
$$;

-- Takes over from those whose last sign of life is older than they promised, by the server's clock. While
-- the server was not up nobody could give any. Answers how many tasks were queued again.
create or replace function pgflow.recover_dead_workers()
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_over uuid[];
  v_died uuid[];
begin
  select array_agg(s.worker_id), coalesce(array_agg(s.worker_id) filter (where s.died), '{}')
  into v_over, v_died
  from (
    select w.worker_id, w.stopped_at is null as died
    from pgflow.workers w
    where w.dead_after is not null
      and w.recovered_at is null
      and greatest(w.last_heartbeat_at, w.stopped_at, pg_postmaster_start_time())
        < clock_timestamp() - w.dead_after
    order by w.worker_id
    for update skip locked
  ) s;
  return case when v_over is null then 0 else pgflow._take_over(v_over, v_died) end;
end;
$$;

-- The workers that may have to be taken over from: for whoever watches how their signs of life move on. A
-- clock that jumps, a server that was down and an outage of the watcher's own cannot deceive such a one.
create or replace function pgflow.watched_workers()
returns table (worker_id uuid, last_heartbeat_at timestamptz, dead_after float8, stopped boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select w.worker_id, w.last_heartbeat_at, extract(epoch from w.dead_after)::float8, w.stopped_at is not null
  from pgflow.workers w
  where w.dead_after is not null
    and w.recovered_at is null
    and coalesce(lower(w.queue_name) = any ((select pgflow._granted_queues('watched_workers'))::text[]), true);
end;
$$;

-- Takes over from these workers, if they have given no sign of life since the one that was seen last; from
-- one that has stopped once it has been over for as long as it promised signs. Answers how many tasks.
create or replace function pgflow.recover_workers(worker_ids uuid[], last_seen timestamptz[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_over uuid[];
  v_died uuid[];
begin
  select array_agg(s.worker_id), coalesce(array_agg(s.worker_id) filter (where s.died), '{}')
  into v_over, v_died
  from (
    select w.worker_id, w.stopped_at is null as died
    from unnest(worker_ids, last_seen) l (worker_id, last_seen)
    join pgflow.workers w on w.worker_id = l.worker_id
    where w.dead_after is not null
      and w.recovered_at is null
      and case
        when w.stopped_at is not null
          then w.stopped_at not between clock_timestamp() - w.dead_after and clock_timestamp()
        else w.last_heartbeat_at = l.last_seen
          and w.last_heartbeat_at not between clock_timestamp() - w.dead_after and clock_timestamp()
      end
    order by w.worker_id
    for update of w skip locked
  ) s;
  return case when v_over is null then 0 else pgflow._take_over(v_over, v_died) end;
end;
$$;

-- This id is given up by the worker that used it: whatever it still holds, perhaps by a claim whose answer
-- was lost, is queued again. Answers how many tasks that were.
create or replace function pgflow.retire_worker(worker_id uuid)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1 from pgflow.workers w
    where w.worker_id = retire_worker.worker_id
      and w.queue_name <> ''
      and lower(w.queue_name) <> all (pgflow._granted_queues('retire_worker'))
  ) then
    return 0; -- not the caller's: it may not use that flow
  end if;
  insert into pgflow.workers (worker_id, queue_name, function_name, dead_after)
  values (retire_worker.worker_id, '', 'retired', interval '0')
  on conflict on constraint workers_pkey do nothing;
  return pgflow._take_over(array[retire_worker.worker_id], '{}');
end;
$$;
