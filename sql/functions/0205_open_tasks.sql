-- Tasks that nobody is to work on any more, and their messages (contract 0.17 section 6). A
-- message leaves its queue, the one that its task was spawned with, after the task has left the open states.

create or replace function pgflow._archive_task_message(p_run_id uuid, p_step_slug text, p_task_index int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
begin
  perform pgmq.archive(t.queue_name, array[t.message_id])
  from pgflow.step_tasks t
  where t.run_id = p_run_id
    and t.step_slug = p_step_slug
    and t.task_index = p_task_index
    and t.message_id is not null;
end;
$$;

-- Archives the messages of these tasks, whatever their state.
create or replace function pgflow._archive_task_messages(run_id uuid, step_slug text, task_indexes int[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_queue record;
begin
  for v_queue in
    select t.queue_name, array_agg(t.message_id order by t.message_id) as ids
    from unnest(task_indexes) i (task_index)
    cross join lateral (
      select t.queue_name, t.message_id
      from pgflow.step_tasks t
      where t.run_id = _archive_task_messages.run_id
        and t.step_slug = _archive_task_messages.step_slug
        and t.task_index = i.task_index
        and t.message_id is not null
      offset 0
    ) t
    group by t.queue_name
    order by t.queue_name
  loop
    perform pgmq.archive(v_queue.queue_name, v_queue.ids);
  end loop;
end;
$$;

-- Notes what the counters of a step do not tell (pgflow.step_counts), beside what is noted already. Caller holds the
-- run's lock.
create or replace function pgflow._note_counts(
  run_id uuid,
  step_slug text,
  lost_attempts bigint,
  uncounted_failures int default 0,
  left_tasks int default null
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.step_counts as c (run_id, step_slug, lost_attempts, uncounted_failures, left_tasks)
  values (
    _note_counts.run_id, _note_counts.step_slug, _note_counts.lost_attempts, _note_counts.uncounted_failures,
    _note_counts.left_tasks
  )
  on conflict on constraint step_counts_pkey do update
    set lost_attempts = c.lost_attempts + excluded.lost_attempts,
        uncounted_failures = c.uncounted_failures + excluded.uncounted_failures,
        left_tasks = coalesce(excluded.left_tasks, c.left_tasks);
$$;

-- The step goes on, or begins anew: its counters tell everything but attempts again.
create or replace function pgflow._forget_counts(run_id uuid, step_slug text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  update pgflow.step_counts c
  set uncounted_failures = 0, left_tasks = null
  where c.run_id = _forget_counts.run_id and c.step_slug = _forget_counts.step_slug;
$$;

-- The queued and started tasks of the run, or of these steps of it, end as "cancelled" or "skipped", and
-- their messages leave the queues. All else of their rows stays. Caller holds the run's lock.
create or replace function pgflow._end_open_tasks(run_id uuid, status text, step_slugs text[] default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_rows tid[];
  v_queue record;
  v_lost record;
begin
  perform pgflow._close_ranges(_end_open_tasks.run_id, step_slugs);
  -- Locked by one statement, changed by the next: see _claim.
  if step_slugs is null then
    select array_agg(o.row_id) into v_rows
    from (
      select t.ctid as row_id
      from pgflow.step_tasks t
      where t.run_id = _end_open_tasks.run_id and t.status in ('queued', 'started')
      order by t.step_slug collate "C", t.task_index
      for update
    ) o;
  else
    select array_agg(o.row_id) into v_rows
    from (
      select t.ctid as row_id
      from pgflow.step_tasks t
      where t.run_id = _end_open_tasks.run_id
        and t.step_slug = any (step_slugs)
        and t.status in ('queued', 'started')
      order by t.step_slug collate "C", t.task_index
      for update
    ) o;
  end if;
  if v_rows is null then
    return;
  end if;

  for v_lost in
    select t.step_slug, count(*) as attempts
    from pgflow.step_tasks t
    where t.ctid = any (v_rows) and t.status = 'started' and t.failed_at is null
    group by t.step_slug
  loop
    perform pgflow._note_counts(_end_open_tasks.run_id, v_lost.step_slug, v_lost.attempts);
  end loop;

  for v_queue in
    with ended as (
      update pgflow.step_tasks t
      set status = _end_open_tasks.status
      where t.ctid = any (v_rows)
      returning t.queue_name, t.message_id
    )
    select e.queue_name, array_agg(e.message_id order by e.message_id) as ids
    from ended e
    where e.message_id is not null
    group by e.queue_name
    order by e.queue_name
  loop
    perform pgmq.archive(v_queue.queue_name, v_queue.ids);
  end loop;
end;
$$;
