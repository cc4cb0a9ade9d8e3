-- Completions (contract section 8). complete_tasks is the rule; complete_task is the same for one task.

-- The array of a finished map's outputs in index order; NULL where it would pass the 256 MB limit of
-- jsonb: the step still completes and its outputs stay readable in the task rows. A value alone takes up to
-- 8 bytes more than within the array; their sum costs a tenth of what building the array does.
create or replace function pgflow._collect_map_output(run_id uuid, step_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_output jsonb;
begin
  if (
    select sum(pg_column_size(t.output)) - 8 * count(*) > pgflow._largest_json()
    from pgflow.step_tasks t
    where t.run_id = _collect_map_output.run_id and t.step_slug = _collect_map_output.step_slug
  ) then
    return null;
  end if;
  v_output := (
    select coalesce(jsonb_agg(coalesce(t.output, 'null'::jsonb) order by t.task_index), '[]'::jsonb)
    from pgflow.step_tasks t
    where t.run_id = _collect_map_output.run_id and t.step_slug = _collect_map_output.step_slug
  );
  return case when pg_column_size(v_output) <= pgflow._largest_json() then v_output end;
exception
  when program_limit_exceeded or out_of_memory then
    return null;
end;
$$;

-- The slug of a dependent map whose size this single step's output should tell but cannot.
create or replace function pgflow._map_starved_by(flow_slug text, run_id uuid, step_slug text, output jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select child.step_slug
  from pgflow.deps d
  join pgflow.steps child
    on child.flow_slug = d.flow_slug and child.step_slug = d.step_slug and child.step_type = 'map'
  join pgflow.step_states ss
    on ss.run_id = _map_starved_by.run_id and ss.step_slug = child.step_slug and ss.initial_tasks is null
  where d.flow_slug = _map_starved_by.flow_slug
    and d.dep_slug = _map_starved_by.step_slug
    and (_map_starved_by.output is null or jsonb_typeof(_map_starved_by.output) <> 'array')
  order by child.step_index
  limit 1;
$$;

-- The step has just completed with this many tasks: its dependents lose one dependency, and a map over
-- it learns its size. Caller holds the run's lock.
create or replace function pgflow._release_dependents_of_completed(
  flow_slug text,
  run_id uuid,
  step_slug text,
  tasks int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform 1
  from pgflow.step_states ss
  join pgflow.deps d on d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug
  where ss.run_id = _release_dependents_of_completed.run_id
    and d.dep_slug = _release_dependents_of_completed.step_slug
  order by ss.step_slug collate "C"
  for update of ss;

  update pgflow.step_states ss
  set remaining_deps = ss.remaining_deps - 1,
      initial_tasks = case
        when s.step_type = 'map' and ss.initial_tasks is null then _release_dependents_of_completed.tasks
        else ss.initial_tasks
      end
  from pgflow.deps d
  join pgflow.steps s on s.flow_slug = d.flow_slug and s.step_slug = d.step_slug
  where d.flow_slug = _release_dependents_of_completed.flow_slug
    and d.dep_slug = _release_dependents_of_completed.step_slug
    and ss.run_id = _release_dependents_of_completed.run_id
    and ss.step_slug = d.step_slug;
end;
$$;

-- Counts tasks of a started step as done: the counter once a batch, then the next spawn window, or,
-- when nothing is left, the completion of the step and all that follows from it.
-- single_output is the output of a single step. Caller holds the locks of the run and the step.
create or replace function pgflow._count_done(
  flow_slug text,
  run_id uuid,
  step_slug text,
  done int,
  single_output jsonb
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_state record;
  v_spawn_to int;
  v_output jsonb;
  v_completed_at timestamptz;
begin
  select ss.initial_tasks, ss.remaining_tasks - done as remaining, ss.spawned_tasks, s.step_type,
    coalesce(s.opt_start_delay, 0) as start_delay
  into v_state
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where ss.run_id = _count_done.run_id and ss.step_slug = _count_done.step_slug;

  -- Two states that only rows written by hand are in: it is unknown how many tasks are left, so that
  -- none of them is the last one; or none was spawned, so that the rows that exist are all.
  if v_state.remaining is null then
    return;
  end if;
  if v_state.remaining > 0 then
    v_spawn_to := case
      when v_state.spawned_tasks = 0 then 0
      else pgflow._spawn_target(
        v_state.initial_tasks, v_state.spawned_tasks, v_state.initial_tasks - v_state.remaining
      )
    end;
    if v_spawn_to > v_state.spawned_tasks then
      perform pgflow._spawn_tasks(
        _count_done.flow_slug, _count_done.run_id, _count_done.step_slug,
        v_state.spawned_tasks, v_spawn_to, 0
      );
    end if;
    update pgflow.step_states ss
    set remaining_tasks = v_state.remaining, spawned_tasks = v_spawn_to
    where ss.run_id = _count_done.run_id and ss.step_slug = _count_done.step_slug;
    return;
  end if;

  v_output := case
    when v_state.step_type = 'single' then single_output
    else pgflow._collect_map_output(_count_done.run_id, _count_done.step_slug)
  end;
  update pgflow.step_states ss
  set status = 'completed',
      completed_at = greatest(now(), ss.started_at),
      remaining_tasks = 0,
      output = v_output
  where ss.run_id = _count_done.run_id and ss.step_slug = _count_done.step_slug
  returning ss.completed_at into v_completed_at;

  perform pgflow._release_dependents_of_completed(
    _count_done.flow_slug,
    _count_done.run_id,
    _count_done.step_slug,
    case
      when v_state.step_type = 'map' then v_state.initial_tasks
      when jsonb_typeof(v_output) = 'array' then jsonb_array_length(v_output)
    end
  );
  update pgflow.runs r
  set remaining_steps = r.remaining_steps - 1
  where r.run_id = _count_done.run_id;

  perform pgflow._emit_step_event(
    _count_done.run_id,
    _count_done.step_slug,
    'completed',
    jsonb_build_object('completed_at', v_completed_at),
    'output',
    v_output
  );
  perform pgflow._advance_run(_count_done.run_id);
end;
$$;

-- A single step whose output cannot be mapped over ends its run, whatever its options say. The run's event
-- comes before the step's (contract). Caller holds the locks of the run and the step.
create or replace function pgflow._fail_by_type_violation(
  flow_slug text,
  run_id uuid,
  step_slug text,
  output jsonb,
  child_slug text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_produced text := coalesce(jsonb_typeof(output), 'null');
  v_error text := format(
    '[TYPE_VIOLATION] Map step %s expects array input but dependency %s produced %s',
    child_slug, step_slug, v_produced
  );
  v_failed_at timestamptz;
begin
  update pgflow.step_tasks t
  set status = 'failed',
      failed_at = greatest(now(), t.started_at),
      output = _fail_by_type_violation.output,
      error_message = format('[TYPE_VIOLATION] Produced %s instead of array', v_produced)
  where t.run_id = _fail_by_type_violation.run_id
    and t.step_slug = _fail_by_type_violation.step_slug
    and t.task_index = 0;

  update pgflow.runs r
  set status = 'failed', failed_at = greatest(now(), r.started_at)
  where r.run_id = _fail_by_type_violation.run_id
  returning r.failed_at into v_failed_at;
  perform pgflow._emit_run_event(
    _fail_by_type_violation.run_id,
    'failed',
    jsonb_build_object('flow_slug', _fail_by_type_violation.flow_slug, 'failed_at', v_failed_at)
  );

  update pgflow.step_states ss
  set status = 'failed', failed_at = greatest(now(), ss.started_at), error_message = v_error
  where ss.run_id = _fail_by_type_violation.run_id and ss.step_slug = _fail_by_type_violation.step_slug
  returning ss.failed_at into v_failed_at;
  perform pgflow._emit_step_event(
    _fail_by_type_violation.run_id,
    _fail_by_type_violation.step_slug,
    'failed',
    jsonb_build_object('error_message', v_error, 'failed_at', v_failed_at)
  );

  perform pgflow._end_open_tasks(_fail_by_type_violation.run_id, 'cancelled');
  perform pgflow._archive_task_message(
    _fail_by_type_violation.run_id, _fail_by_type_violation.step_slug, 0
  );
end;
$$;

-- What a settled batch is answered with: done holds the indexes that were accepted, or is null.
create or replace function pgflow._settled(run_id uuid, step_slug text, task_indexes int[], done int[])
returns pgflow.settled_tasks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    select row(
      coalesce(cardinality(done), 0),
      case
        when cardinality(done) = cardinality(task_indexes) then '{}'::int[]
        else array(select i from unnest(task_indexes) i where i <> all (coalesce(done, '{}')))
      end,
      ss.status,
      r.status
    )::pgflow.settled_tasks
    from pgflow.step_states ss
    join pgflow.runs r on r.run_id = ss.run_id
    where ss.run_id = _settled.run_id and ss.step_slug = _settled.step_slug
  );
end;
$$;

-- Ours: completes many tasks of one step. With worker_id and attempts given, a result is taken only
-- from the worker and attempt that hold the task; without them (contract) from anyone.
create or replace function pgflow.complete_tasks(
  run_id uuid,
  step_slug text,
  task_indexes int[],
  outputs jsonb[],
  worker_id uuid default null,
  attempts int[] default null
)
returns pgflow.settled_tasks
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
set enable_seqscan = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
  v_run_status text;
  v_step_status text;
  v_step_type text;
  v_child text;
  v_rows tid[];
  v_done int[];
  v_ids bigint[];
  v_queue text;
  v_other_queue text;
begin
  select r.flow_slug, r.status into v_flow_slug, v_run_status
  from pgflow.runs r
  where r.run_id = complete_tasks.run_id;
  if found then
    perform pgflow._require_flow('complete_tasks', v_flow_slug);
  end if;
  if v_flow_slug is null or v_run_status = 'failed' then
    perform pgflow._refuse_standby();
    return row(0, task_indexes, null, v_run_status)::pgflow.settled_tasks;
  end if;
  select r.flow_slug, r.status into v_flow_slug, v_run_status
  from pgflow.runs r
  where r.run_id = complete_tasks.run_id
  for update;
  if not found or v_run_status = 'failed' then -- while we waited for the lock
    perform pgflow._archive_task_messages(complete_tasks.run_id, complete_tasks.step_slug, task_indexes);
    return row(0, task_indexes, null, v_run_status)::pgflow.settled_tasks;
  end if;

  select ss.status into v_step_status
  from pgflow.step_states ss
  where ss.run_id = complete_tasks.run_id and ss.step_slug = complete_tasks.step_slug
  for update;
  if not found then
    return row(0, task_indexes, null, v_run_status)::pgflow.settled_tasks;
  end if;
  if v_step_status <> 'started' then
    perform pgflow._archive_task_messages(complete_tasks.run_id, complete_tasks.step_slug, task_indexes);
    return row(0, task_indexes, v_step_status, v_run_status)::pgflow.settled_tasks;
  end if;

  select s.step_type into v_step_type
  from pgflow.steps s
  where s.flow_slug = v_flow_slug and s.step_slug = complete_tasks.step_slug;

  if v_step_type = 'single' then
    v_child := pgflow._map_starved_by(
      v_flow_slug, complete_tasks.run_id, complete_tasks.step_slug, outputs[1]
    );
    if v_child is not null and exists (
      select 1 from pgflow.step_tasks t
      where t.run_id = complete_tasks.run_id
        and t.step_slug = complete_tasks.step_slug
        and t.task_index = task_indexes[1]
        and (complete_tasks.worker_id is null
          or (t.status = 'started'
            and t.last_worker_id = complete_tasks.worker_id
            and t.attempts_count = attempts[1]))
    ) then
      perform pgflow._fail_by_type_violation(
        v_flow_slug, complete_tasks.run_id, complete_tasks.step_slug, outputs[1], v_child
      );
      return row(1, '{}'::int[], 'failed', 'failed')::pgflow.settled_tasks;
    end if;
  end if;

  -- As in _claim: each lateral query is one look-up by primary key, whatever the statistics say, and rows
  -- are locked by one statement and changed by the next.
  select array_agg(l.row_id order by i.n) into v_rows
  from (
    select u.task_index, u.attempt, u.n
    from unnest(task_indexes, attempts) with ordinality u (task_index, attempt, n)
    order by u.task_index
  ) i
  left join lateral (
    select t.ctid as row_id
    from pgflow.step_tasks t
    where t.run_id = complete_tasks.run_id
      and t.step_slug = complete_tasks.step_slug
      and t.task_index = i.task_index
      and t.status = 'started'
      and (t.permanently_stalled_at is null or t.failed_at is null)
      and (complete_tasks.worker_id is null
        or (t.last_worker_id = complete_tasks.worker_id and t.attempts_count = i.attempt))
    for update
  ) l on true;

  with settled as (
    update pgflow.step_tasks t
    set status = 'completed',
        completed_at = greatest(now(), t.started_at),
        output = h.output
    from unnest(v_rows, outputs) h (row_id, output)
    where t.ctid = h.row_id
    returning t.task_index, t.message_id, t.queue_name
  )
  select array_agg(s.task_index), array_agg(s.message_id) filter (where s.message_id is not null),
    min(s.queue_name), max(s.queue_name)
  into v_done, v_ids, v_queue, v_other_queue
  from settled s;

  if v_ids is not null and v_queue = v_other_queue then
    perform pgmq.archive(v_queue, v_ids);
  elsif v_ids is not null then
    perform pgflow._archive_task_messages(complete_tasks.run_id, complete_tasks.step_slug, v_done);
  end if;
  if v_done is not null then
    perform pgflow._count_done(
      v_flow_slug, complete_tasks.run_id, complete_tasks.step_slug, cardinality(v_done), outputs[1]
    );
  end if;

  return pgflow._settled(complete_tasks.run_id, complete_tasks.step_slug, task_indexes, v_done);
end;
$$;

create or replace function pgflow.complete_task(run_id uuid, step_slug text, task_index int, output jsonb)
returns setof pgflow.step_tasks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow.complete_tasks(
    complete_task.run_id,
    complete_task.step_slug,
    array[complete_task.task_index],
    array[complete_task.output]
  );
  return query
  select t.*
  from pgflow.step_tasks t
  where t.run_id = complete_task.run_id
    and t.step_slug = complete_task.step_slug
    and t.task_index = complete_task.task_index;
end;
$$;
