-- Ours: the items of a step as reports tell them, page by page.

-- In how many seconds the message of a queued task becomes visible; NULL where it is.
create or replace function pgflow._due_in(run_id uuid, step_slug text, task_index int)
returns float8
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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
end;
$$;

-- Items of a step that has started, from from_index on in index order, at most so many; with statuses only those. What
-- is rare is looked for among tasks alone, where all of it is.
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
  v_window constant int := 5000;
  v_flow text;
  v_items int;
  v_to int := greatest(from_index, 0);
  v_left int := least(greatest(max_rows, 1), 10000);
  v_count int;
begin
  select ss.flow_slug, ss.initial_tasks into v_flow, v_items
  from pgflow.step_states ss
  where ss.run_id = list_items.run_id and ss.step_slug = list_items.step_slug and ss.started_at is not null;
  if not found or not coalesce(v_flow = any (pgflow._granted_flows('list_items')), true) then
    return;
  end if;
  if statuses is not null and statuses <@ array['failed'] then
    return query
    select t.task_index, t.status, t.attempts_count, t.error_message, t.last_worker_id, t.queued_at, t.started_at,
      coalesce(t.completed_at, t.failed_at), null::float8,
      pgflow._glimpse(t.input, max_chars), null::text
    from pgflow.step_tasks t
    where t.run_id = list_items.run_id
      and t.step_slug = list_items.step_slug
      and t.task_index >= v_to
      and t.status = 'failed'
    order by t.task_index
    limit v_left;
    return;
  end if;
  while v_left > 0 and v_to < v_items loop
    return query
    select i.item_index, i.status, i.attempts, i.error, i.worker_id, i.queued_at, i.started_at,
      coalesce(i.completed_at, i.failed_at),
      case
        when i.status = 'queued' and i.attempts > 0
          then pgflow._due_in(i.run_id, i.step_slug, i.item_index)
      end,
      pgflow._glimpse(i.input, max_chars), pgflow._glimpse(i.output, max_chars)
    from pgflow._items(
      list_items.run_id, list_items.step_slug, v_to,
      least(v_to::bigint + case when statuses is null then v_left else v_window end, v_items)::int
    ) i
    where statuses is null or i.status = any (statuses)
    order by i.item_index
    limit v_left;
    get diagnostics v_count = row_count;
    v_left := v_left - v_count;
    v_to := least(v_to::bigint + case when statuses is null then list_items.max_rows else v_window end, v_items)::int;
    exit when statuses is null;
  end loop;
end;
$$;
