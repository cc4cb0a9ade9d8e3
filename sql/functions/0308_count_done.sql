-- What follows from tasks that are done (contract section 8): the counter of their step, the completion of the step
-- with its output and of what depends on it.

-- The array of a finished map in tasks, its outputs in index order; NULL where it would pass the 256 MB limit of
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
    select coalesce(
      to_jsonb(array_agg(coalesce(t.output, 'null'::jsonb) order by t.task_index)), '[]'::jsonb
    )
    from pgflow.step_tasks t
    where t.run_id = _collect_map_output.run_id and t.step_slug = _collect_map_output.step_slug
  );
  return case when pg_column_size(v_output) <= pgflow._largest_json() then v_output end;
exception
  when program_limit_exceeded or out_of_memory then
    return null;
end;
$$;

-- Whether the array of the outputs of a map in ranges that is done is to be stored: conditions need it, and a map in
-- tasks. A step of one task is claimed with an array made of the pages, but for a small one, which its step's event
-- tells. A map in ranges reads the pages, as does whoever streams; what a run is completed with is made of them, too.
create or replace function pgflow._needs_array(flow_slug text, run_id uuid, step_slug text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    bool_or(
      s.required_input_pattern is not null
      or s.forbidden_input_pattern is not null
      or (s.step_type = 'map' and pgflow._storage(s.flow_slug, s.step_slug) = 'tasks')
    )
    or (
      bool_or(s.step_type <> 'map')
      and pgflow._result_bytes(_needs_array.run_id, _needs_array.step_slug) <= pgflow._largest_leaf()
    ),
    false
  )
  from pgflow.deps d
  join pgflow.steps s on s.flow_slug = d.flow_slug and s.step_slug = d.step_slug
  where d.flow_slug = _needs_array.flow_slug and d.dep_slug = _needs_array.step_slug;
$$;

-- The outputs of a map in ranges as an array; NULL where they are more than is kept in two places.
create or replace function pgflow._small_array(run_id uuid, step_slug text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when pgflow._result_bytes(_small_array.run_id, _small_array.step_slug) <= pgflow._largest_leaf()
      then pgflow._collect_pages(_small_array.run_id, _small_array.step_slug)
  end;
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

-- All tasks of the step are done: it completes with its output, and what depends on it learns that. single_output is
-- the output of a single step. Caller holds the locks of the run and the step, and goes on with the run.
create or replace function pgflow._complete_step(flow_slug text, run_id uuid, step_slug text, single_output jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step_type text;
  v_in_ranges boolean;
  v_output jsonb;
  v_completed_at timestamptz;
  v_tasks int;
begin
  select s.step_type into v_step_type
  from pgflow.steps s
  where s.flow_slug = _complete_step.flow_slug and s.step_slug = _complete_step.step_slug;

  v_in_ranges := v_step_type = 'map' and pgflow._is_in_ranges(_complete_step.run_id, _complete_step.step_slug);
  if v_in_ranges then
    perform pgflow._append_task_results(_complete_step.run_id, _complete_step.step_slug);
    -- It may be open still: what was handed back, or taken over, became tasks.
    update pgflow.range_maps m
    set is_open = false
    where m.run_id = _complete_step.run_id and m.step_slug = _complete_step.step_slug and m.is_open;
  end if;
  v_output := case
    when v_step_type = 'single' then single_output
    when not v_in_ranges then pgflow._collect_map_output(_complete_step.run_id, _complete_step.step_slug)
    when pgflow._needs_array(_complete_step.flow_slug, _complete_step.run_id, _complete_step.step_slug)
      then pgflow._collect_pages(_complete_step.run_id, _complete_step.step_slug)
  end;
  update pgflow.step_states ss
  set status = 'completed',
      completed_at = greatest(now(), ss.started_at),
      remaining_tasks = 0,
      output = v_output
  where ss.run_id = _complete_step.run_id and ss.step_slug = _complete_step.step_slug
  returning ss.completed_at, ss.initial_tasks into v_completed_at, v_tasks;

  perform pgflow._release_dependents_of_completed(
    _complete_step.flow_slug,
    _complete_step.run_id,
    _complete_step.step_slug,
    case
      when v_step_type = 'map' then v_tasks
      when jsonb_typeof(v_output) = 'array' then jsonb_array_length(v_output)
    end
  );
  update pgflow.runs r
  set remaining_steps = r.remaining_steps - 1
  where r.run_id = _complete_step.run_id;

  perform pgflow._emit_step_event(
    _complete_step.run_id,
    _complete_step.step_slug,
    'completed',
    jsonb_build_object('completed_at', v_completed_at),
    'output',
    case
      when v_output is null and v_in_ranges
        and (to_regnamespace('realtime') is not null or pgflow._events_in_full())
        then pgflow._small_array(_complete_step.run_id, _complete_step.step_slug)
      else v_output
    end
  );
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
begin
  -- One look-up by key each: a join may be planned through all runs of the flow. Nobody changes the row before we
  -- do, so it is where it was found.
  select s.row_id, s.initial_tasks, s.remaining_tasks - done as remaining, s.spawned_tasks, s.failed_tasks
  into v_state
  from pgflow._latest_state(_count_done.run_id, _count_done.step_slug) s;

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
    where ss.ctid = v_state.row_id;
    return;
  end if;

  -- Failed items that were not among those to be tried again: see retry_items.
  if v_state.failed_tasks > 0 and v_state.failed_tasks > pgflow._tolerated_failures(
    _count_done.flow_slug, _count_done.step_slug, v_state.initial_tasks
  ) then
    perform pgflow._exhaust_step(
      _count_done.flow_slug, _count_done.run_id, _count_done.step_slug,
      (
        select t.error_message
        from pgflow.step_tasks t
        where t.run_id = _count_done.run_id and t.step_slug = _count_done.step_slug and t.status = 'failed'
        order by t.task_index
        limit 1
      )
    );
    return;
  end if;

  perform pgflow._complete_step(_count_done.flow_slug, _count_done.run_id, _count_done.step_slug, single_output);
  perform pgflow._advance_run(_count_done.run_id);
end;
$$;
