-- Ours: what a worker reports and reads besides its tasks.

-- dead_after is bounded: times are computed with it by whatever looks at all workers, and a promise that has
-- none of them in range would end that for everybody.
create or replace function pgflow.register_worker(
  worker_id uuid,
  queue_name text,
  function_name text,
  dead_after interval default null
)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_queue text := lower(register_worker.queue_name);
  v_dead_after interval := case
    when dead_after is not null then least(greatest(dead_after, interval '0'), interval '1000 days')
  end;
begin
  perform pgflow._require_flow(
    'register_worker',
    coalesce(
      (select f.flow_slug from pgflow.flows f where lower(f.flow_slug) = v_queue),
      (select s.flow_slug from pgflow.steps s where s.queue_name = v_queue limit 1),
      register_worker.queue_name
    )
  );
  insert into pgflow.workers as w (worker_id, queue_name, function_name, dead_after, started_at, last_heartbeat_at)
  values (
    register_worker.worker_id, v_queue, register_worker.function_name,
    v_dead_after, clock_timestamp(), clock_timestamp()
  )
  on conflict on constraint workers_pkey do update
    set last_heartbeat_at = clock_timestamp(),
        stopped_at = null,
        recovered_at = null,
        dead_after = excluded.dead_after
    where coalesce(lower(w.queue_name) = any (pgflow._granted_queues('register_worker')), true);
end;
$$;

-- One call for all queues of a worker. Answers the ids that an operator has deprecated, and those that
-- were taken for dead in the meantime (stopped_at set): these hold no tasks any more.
create or replace function pgflow.heartbeat(worker_ids uuid[])
returns table (worker_id uuid, deprecated boolean, stopped boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_queues text[] := pgflow._granted_queues('heartbeat');
begin
  return query
  update pgflow.workers w
  set last_heartbeat_at = clock_timestamp()
  from (select u.id from unnest(worker_ids) u (id) order by u.id) i
  where w.worker_id = i.id and coalesce(lower(w.queue_name) = any (v_queues), true)
  returning w.worker_id, w.deprecated_at is not null, w.stopped_at is not null;
end;
$$;

-- These workers have stopped: nobody takes over from them what they do not hold any more.
create or replace function pgflow.stop_workers(worker_ids uuid[])
returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  update pgflow.workers w
  set stopped_at = clock_timestamp()
  where w.worker_id = any (worker_ids)
    and coalesce(lower(w.queue_name) = any ((select pgflow._granted_queues('stop_workers'))::text[]), true);
$$;

-- Runs without their payloads: cheap however large those are.
create or replace function pgflow.run_heads(run_ids uuid[])
returns table (
  run_id uuid,
  flow_slug text,
  status text,
  remaining_steps int,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at
  from pgflow.runs r
  where r.run_id = any (run_heads.run_ids)
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_heads'))::text[]), true);
$$;

-- Its payloads, each when it is asked for. A completed map in ranges has its array in pages.
create or replace function pgflow.run_input(run_id uuid)
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select pgflow._input_of(r)
  from pgflow.runs r
  where r.run_id = run_input.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_input'))::text[]), true);
$$;

-- A run's output alone; null until it is completed.
create or replace function pgflow.run_output(run_id uuid)
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.output
  from pgflow.runs r
  where r.run_id = run_output.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_output'))::text[]), true);
$$;

-- A step's output alone, that of a map put together of its tasks'; null until it is completed.
create or replace function pgflow.step_output(run_id uuid, step_slug text)
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    ss.output,
    case when ss.status = 'completed' then pgflow._leaf_array(ss.run_id, ss.step_slug) end
  )
  from pgflow.step_states ss
  where ss.run_id = step_output.run_id
    and ss.step_slug = step_output.step_slug
    and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('step_output'))::text[]), true);
$$;

-- The completed steps that nothing depends on, of which a run's output is made. Those that are not whole are
-- null there, for they would make it too large: a map's outputs are in its tasks, a step's in its state.
create or replace function pgflow.run_leaves(run_id uuid)
returns table (step_slug text, is_map boolean, whole boolean)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select ss.step_slug, s.step_type = 'map',
    coalesce(jsonb_typeof(r.output -> ss.step_slug) <> 'null', false)
      or (s.step_type <> 'map' and coalesce(ss.output = 'null'::jsonb, true))
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  join pgflow.runs r on r.run_id = ss.run_id
  where ss.run_id = run_leaves.run_id
    and ss.status = 'completed'
    and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('run_leaves'))::text[]), true)
    and pgflow._is_leaf(ss.flow_slug, ss.run_id, ss.step_slug)
  order by s.step_index;
$$;

-- Counts of one run's steps, cheap enough to be asked for every second: nothing is counted row by row.
create or replace function pgflow.run_progress(run_id uuid)
returns table (
  step_slug text,
  step_type text,
  status text,
  initial_tasks int,
  remaining_tasks int,
  failed_tasks int,
  error_message text,
  skip_reason text,
  started_at timestamptz,
  finished_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select ss.step_slug, s.step_type, ss.status, ss.initial_tasks, ss.remaining_tasks, ss.failed_tasks,
    ss.error_message,
    ss.skip_reason, ss.started_at, coalesce(ss.completed_at, ss.failed_at, ss.skipped_at)
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where ss.run_id = run_progress.run_id
    and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('run_progress'))::text[]), true)
  order by s.step_index;
$$;

-- The first and the last id that begins so, with or without dashes; NULL where none can.
create or replace function pgflow._id_bound(id_prefix text, filler text)
returns uuid
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when id_prefix ~* '^[0-9a-f-]{1,36}$' and length(replace(id_prefix, '-', '')) between 1 and 32
      then rpad(replace(lower(id_prefix), '-', ''), 32, filler)::uuid
  end;
$$;

-- The runs that were started last, newest first, of one flow or all, with ids that begin with id_prefix.
-- Items are tasks of the steps that are under way or over.
create or replace function pgflow.recent_runs(
  flow_slug text default null,
  id_prefix text default '',
  max_rows int default 20
)
returns table (
  run_id uuid,
  flow text,
  status text,
  items bigint,
  done bigint,
  started_at timestamptz,
  finished_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.run_id, r.flow_slug, r.status, s.items, s.done, r.started_at, coalesce(r.completed_at, r.failed_at)
  from (
    select *
    from pgflow.runs
    where (recent_runs.flow_slug is null or runs.flow_slug = recent_runs.flow_slug)
      and coalesce(runs.flow_slug = any ((select pgflow._granted_flows('recent_runs'))::text[]), true)
      and (
        recent_runs.id_prefix = ''
        or runs.run_id >= pgflow._id_bound(recent_runs.id_prefix, '0')
        and runs.run_id <= pgflow._id_bound(recent_runs.id_prefix, 'f')
      )
    order by runs.started_at desc, runs.run_id
    limit recent_runs.max_rows
  ) r
  cross join lateral (
    select
      coalesce(sum(ss.initial_tasks), 0)::bigint as items,
      coalesce(
        sum(
          case
            when ss.status = 'completed' then ss.initial_tasks
            when ss.status <> 'created' then ss.initial_tasks - coalesce(ss.remaining_tasks, 0)
          end
        ),
        0
      )::bigint as done
    from pgflow.step_states ss
    where ss.run_id = r.run_id and ss.status <> 'skipped'
  ) s
  order by r.started_at desc, r.run_id;
$$;
