-- Ours: the items of a step as reports tell them, page by page.

-- In how many seconds the message of a queued task becomes visible; NULL where it is.
create or replace function pgflow._due_in(run_id uuid, step_slug text, task_index int)
returns float8
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_task record;
  v_due float8;
begin
  select t.queue_name, t.message_id into v_task
  from pgflow.step_tasks t
  where t.run_id = _due_in.run_id and t.step_slug = _due_in.step_slug and t.task_index = _due_in.task_index;
  if v_task.message_id is not null then
    execute format(
      'select extract(epoch from q.vt - clock_timestamp())::float8 from pgmq.%I q '
      'where q.msg_id = $1 and q.vt > clock_timestamp()',
      pgmq.format_table_name(v_task.queue_name, 'q')
    ) into v_due using v_task.message_id;
  end if;
  return v_due;
exception when undefined_table then
  return null; -- dropped with its flow, maybe while it was waited for
end;
$$;

-- Which indexes of a map in ranges, from from_index on, items of these statuses are among. What is a task of its own is
-- among them whatever its status.
create or replace function pgflow._places_of(run_id uuid, step_slug text, from_index int, statuses text[])
returns int4multirange
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_items int := (
    select m.items from pgflow.range_maps m
    where m.run_id = _places_of.run_id and m.step_slug = _places_of.step_slug
  );
  v_all int4multirange := int4multirange(int4range(least(from_index, v_items), v_items));
  v_tasks int4multirange := (
    select coalesce(range_agg(int4range(t.task_index, t.task_index + 1)), '{}')
    from pgflow.step_tasks t
    where t.run_id = _places_of.run_id
      and t.step_slug = _places_of.step_slug
      and t.task_index >= from_index
      and t.status = any (statuses)
  );
  -- Those that failed are in no page of results; many of them would be so many places to look at in vain.
  v_gone int4multirange := (
    select coalesce(range_agg(int4range(t.task_index, t.task_index + 1)), '{}')
    from pgflow.step_tasks t
    where t.run_id = _places_of.run_id
      and t.step_slug = _places_of.step_slug
      and t.task_index >= from_index
      and t.status in ('completed', 'failed')
      and t.status <> all (statuses)
  );
  v_done int4multirange;
  v_held int4multirange;
begin
  v_done := (
    select coalesce(range_agg(int4range(p.first_index, p.first_index + p.items)), '{}')
    from pgflow.pages p
    where p.run_id = _places_of.run_id and p.step_slug = _places_of.step_slug and p.is_result
  );
  v_held := (
    select coalesce(range_agg(int4range(g.first_index, g.end_index)), '{}')
    from pgflow.ranges g
    where g.run_id = _places_of.run_id and g.step_slug = _places_of.step_slug and g.worker_id is not null
  );
  return v_all * (
    v_tasks
    + case when 'completed' = any (statuses) then v_done else '{}' end
    + case when 'started' = any (statuses) then v_held else '{}' end
    + case
        when statuses && array['queued', 'cancelled', 'skipped'] then v_all - v_done - v_held - v_gone
        else '{}'
      end
  );
end;
$$;

-- Items of a step that has started, from from_index on in index order, at most so many; with statuses only those.
-- Of a map in ranges no more pages are read than what is answered lies in.
create or replace function pgflow.list_items(
  run_id uuid,
  step_slug text,
  from_index int default 0,
  max_rows int default 100,
  statuses text[] default null,
  max_chars int default 200
)
returns table (
  item_index int,
  status text,
  attempts int,
  error text,
  worker_id uuid,
  queued_at timestamptz,
  started_at timestamptz,
  finished_at timestamptz,
  next_in float8,
  input text,
  output text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_step record;
  v_places int4multirange;
  v_place int4range;
  v_from int;
  v_to int;
  v_left int := least(greatest(max_rows, 1), 10000);
  v_count int;
begin
  select ss.flow_slug, ss.initial_tasks, ss.spawned_tasks,
    exists (
      select 1 from pgflow.range_maps m where m.run_id = ss.run_id and m.step_slug = ss.step_slug
    ) as in_ranges
  into v_step
  from pgflow.step_states ss
  where ss.run_id = list_items.run_id and ss.step_slug = list_items.step_slug and ss.started_at is not null;
  if not found or not coalesce(v_step.flow_slug = any (pgflow._granted_flows('list_items')), true) then
    return;
  end if;
  from_index := greatest(from_index, 0);
  if statuses is null then
    v_places := int4multirange(int4range(least(from_index, v_step.initial_tasks), v_step.initial_tasks));
  elsif v_step.in_ranges then
    v_places := pgflow._places_of(list_items.run_id, list_items.step_slug, from_index, statuses);
  else
    -- Tasks, and behind them those that are not spawned yet.
    v_places := (
      select range_agg(int4range(t.task_index, t.task_index + 1))
      from (
        select t.task_index
        from pgflow.step_tasks t
        where t.run_id = list_items.run_id
          and t.step_slug = list_items.step_slug
          and t.task_index >= from_index
          and t.status = any (statuses)
        order by t.task_index
        limit v_left
      ) t
    );
    if v_step.spawned_tasks > 0 and statuses && array['queued', 'cancelled', 'skipped'] then
      v_places := coalesce(v_places, '{}') + int4multirange(
        int4range(
          least(greatest(from_index, v_step.spawned_tasks), v_step.initial_tasks), v_step.initial_tasks
        )
      );
    end if;
  end if;

  for v_place in select p from unnest(v_places) p order by p loop
    v_from := lower(v_place);
    while v_from < upper(v_place) and v_left > 0 loop
      v_to := least(v_from::bigint + greatest(v_left, 100), upper(v_place))::int;
      return query
      select i.item_index, i.status, i.attempts, i.error, i.worker_id, i.queued_at, i.started_at,
        coalesce(i.completed_at, i.failed_at),
        case
          when i.status = 'queued' and i.attempts > 0
            then pgflow._due_in(i.run_id, i.step_slug, i.item_index)
        end,
        pgflow._glimpse(i.input, max_chars), pgflow._glimpse(i.output, max_chars)
      from pgflow._items(list_items.run_id, list_items.step_slug, v_from, v_to) i
      where statuses is null or i.status = any (statuses)
      order by i.item_index
      limit v_left;
      get diagnostics v_count = row_count;
      v_left := v_left - v_count;
      v_from := v_to;
    end loop;
    exit when v_left <= 0;
  end loop;
end;
$$;
