-- Ours: the exceptions of a map in ranges. Each becomes an ordinary task, whose failure is then recorded by the
-- rules for tasks.

-- The elements of these items of a map in ranges. Each page is brought to memory once, however many of its items are
-- asked for.
create or replace function pgflow._elements_at(run_id uuid, step_slug text, task_indexes int[])
returns table (task_index int, element jsonb)
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_page record;
  v_body jsonb;
  v_end int := 0;
begin
  for task_index in select i from unnest(task_indexes) i order by i loop
    if task_index >= v_end then
      select p.first_index, p.items, p.body into v_page
      from pgflow._pages_of(
        _elements_at.run_id, _elements_at.step_slug, _elements_at.task_index, _elements_at.task_index + 1
      ) p;
      v_body := jsonb_path_query_first(v_page.body, '$');
      v_end := v_page.first_index + v_page.items;
    end if;
    element := v_body -> (_elements_at.task_index - v_page.first_index);
    return next;
  end loop;
end;
$$;

-- Makes tasks of these items, which no range holds any more. worker_id: they are held by it since held_since, as
-- their first attempt, and their messages come with the delay; NULL: they are queued. deaths: of workers that held
-- them. Caller holds the run's lock.
create or replace function pgflow._make_tasks(
  flow_slug text,
  run_id uuid,
  step_slug text,
  task_indexes int[],
  worker_id uuid,
  held_since timestamptz,
  deaths int,
  delay int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_queue text;
  v_common jsonb := jsonb_build_object('flow_slug', flow_slug, 'run_id', run_id, 'step_slug', step_slug);
begin
  select s.queue_name into v_queue
  from pgflow.steps s
  where s.flow_slug = _make_tasks.flow_slug and s.step_slug = _make_tasks.step_slug;

  insert into pgflow.step_tasks (
    flow_slug, run_id, step_slug, message_id, task_index, status, attempts_count, queued_at, started_at,
    last_worker_id, worker_deaths, input, queue_name
  )
  select _make_tasks.flow_slug, _make_tasks.run_id, _make_tasks.step_slug, x.message_id, x.task_index,
    case when _make_tasks.worker_id is null then 'queued' else 'started' end,
    case when _make_tasks.worker_id is null then 0 else 1 end,
    least(held_since, now()),
    case when _make_tasks.worker_id is not null then least(held_since, now()) end,
    _make_tasks.worker_id,
    nullif(_make_tasks.deaths, 0),
    x.element,
    v_queue
  from rows from (
    pgmq.send_batch(
      v_queue,
      array(
        select v_common || jsonb_build_object('task_index', i)
        from unnest(task_indexes) i
        order by i
      ),
      delay
    ),
    pgflow._elements_at(_make_tasks.run_id, _make_tasks.step_slug, task_indexes)
  ) x (message_id, task_index, element);
end;
$$;

-- Records that items of one map failed: each was its first attempt, and lease lease_nos[i] of the worker holds it.
-- permanent[i] fails at once. Answers as fail_tasks does.
create or replace function pgflow.fail_range_items(
  run_id uuid,
  step_slug text,
  worker_id uuid,
  lease_nos int[],
  indexes int[],
  errors text[],
  permanent boolean[] default null
)
returns pgflow.settled_tasks
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_map record;
  v_taken record;
  v_indexes int[] := '{}';
  v_errors text[] := '{}';
  v_permanent boolean[] := '{}';
  v_since timestamptz;
  v_rejected int[] := '{}';
  v_settled pgflow.settled_tasks;
begin
  perform pgflow._require_alike(
    'fail_range_items', array_dims(indexes), array_dims(lease_nos), array_dims(errors),
    coalesce(array_dims(permanent), array_dims(indexes))
  );
  select * into v_map
  from pgflow._lock_to_settle('fail_range_items', fail_range_items.run_id, fail_range_items.step_slug);
  if v_map.run_status is distinct from 'started' or v_map.step_status is distinct from 'started' then
    return row(0, indexes, v_map.step_status, v_map.run_status)::pgflow.settled_tasks;
  end if;

  for v_item in 1 .. coalesce(cardinality(indexes), 0) loop
    select * into v_taken
    from pgflow._take_items(
      fail_range_items.run_id, fail_range_items.step_slug, fail_range_items.worker_id, lease_nos[v_item],
      indexes[v_item], 1
    );
    if v_taken.is_held then
      v_indexes := v_indexes || indexes[v_item];
      v_errors := v_errors || errors[v_item];
      v_permanent := v_permanent || coalesce(permanent[v_item], false);
      v_since := least(v_since, (v_taken.held).leased_at);
    else
      v_rejected := v_rejected || indexes[v_item];
    end if;
  end loop;
  if cardinality(v_indexes) = 0 then
    return row(0, v_rejected, v_map.step_status, v_map.run_status)::pgflow.settled_tasks;
  end if;

  perform pgflow._make_tasks(
    v_map.flow_slug, fail_range_items.run_id, fail_range_items.step_slug, v_indexes, fail_range_items.worker_id,
    v_since, 0, 60
  );
  v_settled := pgflow.fail_tasks(
    fail_range_items.run_id, fail_range_items.step_slug, v_indexes, v_errors, fail_range_items.worker_id,
    array_fill(1, array[cardinality(v_indexes)]), v_permanent
  );
  v_settled.rejected := v_rejected || v_settled.rejected;
  return v_settled;
end;
$$;
