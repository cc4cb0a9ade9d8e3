-- Spawning the tasks of started steps (contract sections 5 and 6.4).

-- The elements of a map step in [from_index, to_index), in index order, as one jsonb array.
-- A whole array is never cut up task by task: one slice serves a whole window.
create or replace function pgflow._map_elements(
  run_id uuid,
  step_slug text,
  from_index int,
  to_index int
)
returns setof jsonb
language plpgsql
rows 20000
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
  v_parent_slug text;
  v_parent_type text;
  v_parent_status text;
  v_source text;
  v_array jsonb;
begin
  if pgflow._is_in_ranges(_map_elements.run_id, _map_elements.step_slug) then
    return query
    select e.value
    from pgflow.range_maps m
    cross join lateral pgflow._page_elements(
      m.run_id, coalesce(m.source_step, m.step_slug), m.source_step is not null, from_index, to_index
    ) e (value)
    where m.run_id = _map_elements.run_id and m.step_slug = _map_elements.step_slug;
    return;
  end if;

  select r.flow_slug, d.dep_slug, p.step_type
  into v_flow_slug, v_parent_slug, v_parent_type
  from pgflow.runs r
  left join pgflow.deps d on d.flow_slug = r.flow_slug and d.step_slug = _map_elements.step_slug
  left join pgflow.steps p on p.flow_slug = d.flow_slug and p.step_slug = d.dep_slug
  where r.run_id = _map_elements.run_id;

  v_source := pgflow._source_in_pages(_map_elements.run_id, v_parent_slug);
  if v_source is not null then
    return query
    select e from pgflow._page_elements(_map_elements.run_id, v_source, true, from_index, to_index) e;
    return;
  end if;
  if v_parent_slug is null then
    select r.input into v_array from pgflow.runs r where r.run_id = _map_elements.run_id;
  else
    select s.output, s.status into v_array, v_parent_status
    from pgflow.step_states s
    where s.run_id = _map_elements.run_id and s.step_slug = v_parent_slug;
  end if;

  -- Only rows written by hand get here. Elements that are not known yet are looked up at the claim.
  if jsonb_typeof(v_array) <> 'array' or v_parent_status <> 'completed' then
    return;
  end if;

  -- A map's outputs are already one row each; its stored array may be missing where it would pass
  -- the size limit of jsonb.
  if v_parent_type = 'map' and (to_index - from_index) * 4 < coalesce(jsonb_array_length(v_array), 2147483647) then
    return query
    select coalesce(t.output, 'null'::jsonb)
    from pgflow.step_tasks t
    where t.run_id = _map_elements.run_id
      and t.step_slug = v_parent_slug
      and t.task_index >= from_index
      and t.task_index < to_index
      and (t.status in ('completed', 'failed') or t.permanently_stalled_at is not null)
    order by t.task_index;
    if found then
      return;
    end if;
  end if;

  if from_index > 0 or to_index < jsonb_array_length(v_array) then
    v_array := jsonb_path_query_array(
      v_array,
      '$[$from to $to]',
      jsonb_build_object('from', from_index, 'to', to_index - 1)
    );
  end if;
  return query select e.value from jsonb_array_elements(v_array) e (value);
end;
$$;

-- Sends one message, to the step's queue, and writes one row for each task in [from_index, to_index).
-- Caller holds the run's lock.
create or replace function pgflow._spawn_tasks(
  flow_slug text,
  run_id uuid,
  step_slug text,
  from_index int,
  to_index int,
  start_delay int default 0
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_common jsonb := jsonb_build_object('flow_slug', flow_slug, 'run_id', run_id, 'step_slug', step_slug);
  v_messages jsonb[];
  v_is_map boolean;
  v_queue text;
begin
  select s.step_type = 'map', s.queue_name into v_is_map, v_queue
  from pgflow.steps s
  where s.flow_slug = _spawn_tasks.flow_slug and s.step_slug = _spawn_tasks.step_slug;

  -- Adding a key to what all have in common takes half the time of building each from its parts.
  v_messages := array(
    select v_common || jsonb_build_object('task_index', i)
    from generate_series(from_index, to_index - 1) i
    order by i
  );

  if v_is_map then
    insert into pgflow.step_tasks (flow_slug, run_id, step_slug, message_id, task_index, input, queue_name)
    select _spawn_tasks.flow_slug, _spawn_tasks.run_id, _spawn_tasks.step_slug,
      x.message_id, from_index + x.n - 1, x.element, v_queue
    from rows from (
      pgmq.send_batch(v_queue, v_messages, start_delay),
      pgflow._map_elements(_spawn_tasks.run_id, _spawn_tasks.step_slug, from_index, to_index)
    ) with ordinality x (message_id, element, n);
  else
    insert into pgflow.step_tasks (flow_slug, run_id, step_slug, message_id, task_index, queue_name)
    select _spawn_tasks.flow_slug, _spawn_tasks.run_id, _spawn_tasks.step_slug,
      x.message_id, from_index + x.n - 1, v_queue
    from pgmq.send_batch(v_queue, v_messages, start_delay) with ordinality x (message_id, n);
  end if;

  -- A hint for idle workers; a worker that misses it finds the work at its next poll.
  perform pg_notify('pgflow_work', _spawn_tasks.flow_slug);
end;
$$;

-- Starts the steps of a run whose parents are all done (contract section 6.4).
create or replace function pgflow.start_ready_steps(run_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
  v_step record;
  v_started_at timestamptz;
  v_in_ranges boolean;
begin
  select r.flow_slug, r.status into v_run.flow_slug, v_run.status
  from pgflow.runs r
  where r.run_id = start_ready_steps.run_id
  for update;
  if not found or v_run.status <> 'started' then
    return;
  end if;

  for v_step in
    select ss.step_slug, ss.initial_tasks, s.step_type, coalesce(s.opt_start_delay, 0) as start_delay
    from pgflow.step_states ss
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where ss.run_id = start_ready_steps.run_id
      and ss.status = 'created'
      and ss.remaining_deps = 0
      and ss.initial_tasks > 0
    order by ss.step_slug collate "C"
    for update of ss
  loop
    v_in_ranges := v_step.step_type = 'map' and pgflow._storage(v_run.flow_slug, v_step.step_slug) = 'ranges';
    update pgflow.step_states ss
    set status = 'started',
        -- Here and wherever a time is set: our transaction may have begun before the run was started.
        started_at = greatest(now(), ss.created_at),
        remaining_tasks = ss.initial_tasks,
        spawned_tasks = case when v_in_ranges then 0 else pgflow._spawn_target(ss.initial_tasks, 0, 0) end
    where ss.run_id = start_ready_steps.run_id and ss.step_slug = v_step.step_slug
    returning ss.started_at into v_started_at;

    perform pgflow._emit_step_event(
      start_ready_steps.run_id,
      v_step.step_slug,
      'started',
      jsonb_build_object(
        'started_at', v_started_at,
        'remaining_tasks', v_step.initial_tasks,
        'remaining_deps', 0
      )
    );
    if v_in_ranges then
      perform pgflow._open_ranges(
        v_run.flow_slug, start_ready_steps.run_id, v_step.step_slug, v_step.initial_tasks, v_step.start_delay
      );
      continue;
    end if;
    perform pgflow._spawn_tasks(
      v_run.flow_slug,
      start_ready_steps.run_id,
      v_step.step_slug,
      0,
      pgflow._spawn_target(v_step.initial_tasks, 0, 0),
      v_step.start_delay
    );
  end loop;
end;
$$;
