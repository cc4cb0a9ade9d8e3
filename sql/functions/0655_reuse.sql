-- Ours: work of an earlier run that a new one takes instead of doing it again, where the input is the same. What is
-- taken is copied: the earlier run may go at any time.

-- The items of a map that completed, one for each element that there is among them, by a hash of its text: 1 and 1.0
-- differ, as they may to a handler.
create or replace function pgflow._finished_elements(run_id uuid, step_slug text)
returns table (hash bytea, output jsonb)
language plpgsql
stable
rows 100000
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
  return query
  select distinct on (e.hash) e.hash, e.output
  from (
    select sha256(convert_to(i.input::text, 'UTF8')) as hash, i.item_index, coalesce(i.output, 'null'::jsonb) as output
    from pgflow._items(_finished_elements.run_id, _finished_elements.step_slug, 0, 2147483647) i
    where i.status = 'completed' and i.input is not null
  ) e
  order by e.hash, e.item_index;
end;
$$;

-- Whether two runs have the same input, to the last digit.
create or replace function pgflow._same_input(run_id uuid, other uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select record_image_eq(row(pgflow._input_of(a)), row(pgflow._input_of(b)))
      from pgflow.runs a
      join pgflow.runs b on b.run_id = _same_input.other
      where a.run_id = _same_input.run_id
    ),
    false
  );
$$;

-- Whether a step of one task has in both runs the same input; its output there, if so.
create or replace function pgflow._same_step_output(
  run_id uuid,
  step_slug text,
  source_run uuid,
  reads_input boolean,
  out is_same boolean,
  out output jsonb
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flow text := (select r.flow_slug from pgflow.runs r where r.run_id = _same_step_output.run_id);
  v_source_flow text;
  v_has_parents boolean;
  v_mine jsonb;
  v_theirs jsonb;
begin
  is_same := false;
  select ss.flow_slug, ss.output into v_source_flow, _same_step_output.output
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where ss.run_id = _same_step_output.source_run
    and ss.step_slug = _same_step_output.step_slug
    and ss.status = 'completed'
    and s.step_type <> 'map';
  if not found or pgflow._map_starved_by(
    v_flow, _same_step_output.run_id, _same_step_output.step_slug, _same_step_output.output
  ) is not null then
    return;
  end if;
  v_has_parents := exists (
    select 1 from pgflow.deps d where d.flow_slug = v_flow and d.step_slug = _same_step_output.step_slug
  );
  if (reads_input or not v_has_parents)
    and not pgflow._same_input(_same_step_output.run_id, _same_step_output.source_run)
  then
    return;
  end if;
  if v_has_parents then
    v_mine := pgflow._deps_outputs(v_flow, _same_step_output.run_id, _same_step_output.step_slug);
    v_theirs := pgflow._deps_outputs(v_source_flow, _same_step_output.source_run, _same_step_output.step_slug);
    is_same := coalesce(v_mine is not null and v_theirs is not null and record_image_eq(row(v_mine), row(v_theirs)), false);
  else
    is_same := not exists (
      select 1 from pgflow.deps d
      where d.flow_slug = v_source_flow and d.step_slug = _same_step_output.step_slug
    );
  end if;
end;
$$;

-- Writes what is there of a map in ranges as its result pages, of about 64 kB; answers which items these are.
create or replace function pgflow._copy_results(run_id uuid, step_slug text, item_count int, source_run uuid)
returns table (first_index int, items int)
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)
  select _copy_results.run_id, _copy_results.step_slug, true, min(m.i), count(*),
    to_jsonb(array_agg(m.output order by m.i))
  from (
    select e.n::int - 1 as i, f.output, e.n - row_number() over w as island,
      sum(pg_column_size(f.output)) over w / 65536 as page
    from pgflow._map_elements(_copy_results.run_id, _copy_results.step_slug, 0, _copy_results.item_count)
      with ordinality e (element, n)
    join pgflow._finished_elements(_copy_results.source_run, _copy_results.step_slug) f
      on f.hash = sha256(convert_to(e.element::text, 'UTF8'))
    window w as (order by e.n)
  ) m
  group by m.island, m.page
  returning pages.first_index, pages.items;
$$;

-- The same of a map in tasks, as tasks that are completed and were never queued.
create or replace function pgflow._copy_tasks(
  run_id uuid,
  step_slug text,
  items int,
  source_run uuid,
  flow_slug text,
  queue_name text
)
returns setof int
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.step_tasks (
    flow_slug, run_id, step_slug, task_index, status, output, started_at, completed_at, input, queue_name
  )
  select _copy_tasks.flow_slug, _copy_tasks.run_id, _copy_tasks.step_slug, e.n - 1, 'completed', f.output,
    now(), now(), e.element, _copy_tasks.queue_name
  from pgflow._map_elements(_copy_tasks.run_id, _copy_tasks.step_slug, 0, _copy_tasks.items)
    with ordinality e (element, n)
  join pgflow._finished_elements(_copy_tasks.source_run, _copy_tasks.step_slug) f
    on f.hash = sha256(convert_to(e.element::text, 'UTF8'))
  returning step_tasks.task_index;
$$;

-- Sends messages for the items of a map in tasks that were not taken, and writes their rows: all of them, no windows.
create or replace function pgflow._spawn_rest(
  flow_slug text,
  run_id uuid,
  step_slug text,
  items int,
  taken int4multirange,
  queue_name text,
  start_delay int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_common jsonb := jsonb_build_object('flow_slug', flow_slug, 'run_id', run_id, 'step_slug', step_slug);
  v_indexes int[] := array(
    select i.i
    from unnest(int4multirange(int4range(0, items)) - taken) u (u)
    cross join lateral generate_series(lower(u.u), upper(u.u) - 1) i (i)
    order by i.i
  );
  v_messages jsonb[] := array(
    select v_common || jsonb_build_object('task_index', u.i) from unnest(v_indexes) with ordinality u (i, n) order by u.n
  );
begin
  insert into pgflow.step_tasks (flow_slug, run_id, step_slug, message_id, task_index, input, queue_name)
  select _spawn_rest.flow_slug, _spawn_rest.run_id, _spawn_rest.step_slug, m.message_id, m.task_index, e.element,
    _spawn_rest.queue_name
  from rows from (
    pgmq.send_batch(_spawn_rest.queue_name, v_messages, start_delay), unnest(v_indexes)
  ) m (message_id, task_index)
  join pgflow._map_elements(_spawn_rest.run_id, _spawn_rest.step_slug, 0, items) with ordinality e (element, n)
    on e.n = m.task_index + 1
  order by m.message_id;
end;
$$;

-- Starts a map with what there is of it, if there is anything. Answers which items that is.
create or replace function pgflow._reuse_map(
  flow_slug text,
  run_id uuid,
  step_slug text,
  items int,
  source_run uuid,
  start_delay int,
  queue_name text
)
returns int4multirange
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_in_ranges boolean := pgflow._storage(flow_slug, step_slug) = 'ranges';
  v_firsts int[];
  v_counts int[];
  v_taken int4multirange;
  v_count int;
  v_started_at timestamptz;
begin
  if v_in_ranges then
    select array_agg(c.first_index), array_agg(c.items), range_agg(int4range(c.first_index, c.first_index + c.items)),
      sum(c.items)
    into v_firsts, v_counts, v_taken, v_count
    from pgflow._copy_results(
      _reuse_map.run_id, _reuse_map.step_slug, _reuse_map.items, _reuse_map.source_run
    ) c;
  else
    select range_agg(int4range(c.i, c.i + 1)), count(*) into v_taken, v_count
    from pgflow._copy_tasks(
      _reuse_map.run_id, _reuse_map.step_slug, _reuse_map.items, _reuse_map.source_run,
      _reuse_map.flow_slug, _reuse_map.queue_name
    ) c (i);
  end if;
  if v_taken is null then
    return '{}';
  end if;

  update pgflow.step_states ss
  set status = 'started',
      started_at = greatest(now(), ss.created_at),
      remaining_tasks = ss.initial_tasks - v_count,
      spawned_tasks = case when v_in_ranges then 0 else ss.initial_tasks end
  where ss.run_id = _reuse_map.run_id and ss.step_slug = _reuse_map.step_slug
  returning ss.started_at into v_started_at;
  perform pgflow._emit_step_event(
    _reuse_map.run_id,
    _reuse_map.step_slug,
    'started',
    jsonb_build_object('started_at', v_started_at, 'remaining_tasks', items - v_count, 'remaining_deps', 0)
  );
  if v_in_ranges then
    perform pgflow._open_ranges(
      _reuse_map.flow_slug, _reuse_map.run_id, _reuse_map.step_slug, _reuse_map.items, _reuse_map.start_delay
    );
    update pgflow.range_maps m
    set next_index = m.items, is_open = v_count < m.items
    where m.run_id = _reuse_map.run_id and m.step_slug = _reuse_map.step_slug;
    insert into pgflow.ranges (run_id, step_slug, first_index, end_index, lease_no)
    select m.run_id, m.step_slug, lower(u.u), upper(u.u), m.lease_base
    from pgflow.range_maps m
    cross join lateral unnest(int4multirange(int4range(0, m.items)) - v_taken) u (u)
    where m.run_id = _reuse_map.run_id and m.step_slug = _reuse_map.step_slug;
    perform pgflow._pass_on(_reuse_map.run_id, _reuse_map.step_slug, v_firsts, v_counts);
  elsif v_count < items then
    perform pgflow._spawn_rest(
      _reuse_map.flow_slug, _reuse_map.run_id, _reuse_map.step_slug, _reuse_map.items, v_taken,
      _reuse_map.queue_name, _reuse_map.start_delay
    );
  end if;
  perform pg_notify('pgflow_work', _reuse_map.flow_slug);
  return v_taken;
end;
$$;

-- Takes the ready steps of a run that are to be taken from an earlier one, whole or in part, where there is
-- anything of them; what is missing is started. Answers how many were completed by that. Caller holds the run's lock,
-- and has tested conditions.
create or replace function pgflow._reuse_steps(run_id uuid)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step record;
  v_taken int4multirange;
  v_count int;
  v_is_same boolean;
  v_output jsonb;
  v_completed int := 0;
begin
  if not exists (select 1 from pgflow.reuses u where u.run_id = _reuse_steps.run_id and u.taken is null) then
    return 0;
  end if;
  for v_step in
    select ss.flow_slug, ss.step_slug, ss.initial_tasks, s.step_type, s.queue_name,
      coalesce(s.opt_start_delay, 0) as start_delay, u.source_run, u.reads_input
    from pgflow.reuses u
    join pgflow.step_states ss on ss.run_id = u.run_id and ss.step_slug = u.step_slug
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where u.run_id = _reuse_steps.run_id
      and u.taken is null
      and ss.status = 'created'
      and ss.remaining_deps = 0
      and ss.initial_tasks > 0
    order by ss.step_slug collate "C"
    for update of ss
  loop
    v_taken := '{}';
    v_output := null;
    begin
      if v_step.step_type <> 'map' then
        select s.is_same, s.output into v_is_same, v_output
        from pgflow._same_step_output(
          _reuse_steps.run_id, v_step.step_slug, v_step.source_run, v_step.reads_input
        ) s;
        if v_is_same then
          insert into pgflow.step_tasks (
            flow_slug, run_id, step_slug, status, output, started_at, completed_at, queue_name
          )
          values (
            v_step.flow_slug, _reuse_steps.run_id, v_step.step_slug, 'completed', v_output, now(), now(),
            v_step.queue_name
          );
          update pgflow.step_states ss
          set status = 'started', started_at = greatest(now(), ss.created_at), remaining_tasks = 0, spawned_tasks = 1
          where ss.run_id = _reuse_steps.run_id and ss.step_slug = v_step.step_slug;
          perform pgflow._emit_step_event(
            _reuse_steps.run_id,
            v_step.step_slug,
            'started',
            jsonb_build_object('started_at', now(), 'remaining_tasks', 0, 'remaining_deps', 0)
          );
          v_taken := '{[0,1)}';
        end if;
      elsif not v_step.reads_input or pgflow._same_input(_reuse_steps.run_id, v_step.source_run) then
        v_taken := pgflow._reuse_map(
          v_step.flow_slug, _reuse_steps.run_id, v_step.step_slug, v_step.initial_tasks, v_step.source_run,
          v_step.start_delay, v_step.queue_name
        );
      end if;
    exception when program_limit_exceeded or out_of_memory then -- values that cannot be compared
      v_taken := '{}';
    end;
    v_count := (select coalesce(sum(upper(t.t) - lower(t.t)), 0) from unnest(v_taken) t (t));
    update pgflow.reuses u
    set taken = v_count, items = v_step.initial_tasks, indexes = v_taken, taken_at = clock_timestamp()
    where u.run_id = _reuse_steps.run_id and u.step_slug = v_step.step_slug;
    if v_count = v_step.initial_tasks then
      perform pgflow._complete_step(v_step.flow_slug, _reuse_steps.run_id, v_step.step_slug, v_output);
      v_completed := v_completed + 1;
    end if;
  end loop;
  return v_completed;
end;
$$;
