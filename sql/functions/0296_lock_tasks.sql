-- Ours: the rows of tasks that lie close together, found in one walk along an index. A look-up of each of them by its
-- key costs more than all else that is done to lock it. Which way is taken is up to the caller, who knows how far
-- apart they are: a walk passes whatever lies between.

-- Whether so many keys between these two are worth a walk, and what it takes to begin one.
create or replace function pgflow._are_close(first bigint, last bigint, keys int)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select keys >= 50 and first >= 0 and last - first < 4 * keys::bigint $$;

-- Locks the queued tasks behind these messages, whose ids are between the two; see _claim. Rows that another session
-- holds are left to it. bytes: of the inputs that have a size, which are so many.
--
-- The merge join has the index in order and sorts a few numbers: no other join is left, so that no statistics lead to
-- a plan in which one side is read for each row of the other.
create or replace function pgflow._lock_close_messages(
  flow_slug text,
  queue_name text,
  step_slug text,
  msg_ids bigint[],
  first_id bigint,
  last_id bigint,
  out row_ids tid[],
  out runs uuid[],
  out steps text[],
  out bytes bigint,
  out sized bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_nestloop = off
set enable_hashjoin = off
set enable_mergejoin = on
set enable_sort = on
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  select array_agg(l.row_id), array_agg(l.run_id), array_agg(l.step_slug), sum(l.size), count(l.size)
  into row_ids, runs, steps, bytes, sized
  from (
    select t.ctid as row_id, t.run_id, t.step_slug, pg_column_size(t.input) as size
    from unnest(msg_ids) m (id)
    join pgflow.step_tasks t on t.message_id = m.id
    where t.queue_name = _lock_close_messages.queue_name
      and t.message_id >= first_id
      and t.message_id <= last_id
      and t.flow_slug = _lock_close_messages.flow_slug
      and t.status = 'queued'
      and (_lock_close_messages.step_slug is null or t.step_slug = _lock_close_messages.step_slug)
    for update of t skip locked
  ) l;
end;
$$;

-- Locks the tasks of a step with these indexes, which are between the two, as far as results of them can be recorded:
-- see complete_tasks. Their rows in the order of the indexes; those that are not to be had are missing.
create or replace function pgflow._lock_close_tasks(
  run_id uuid,
  step_slug text,
  worker_id uuid,
  task_indexes int[],
  attempts int[],
  msg_ids bigint[],
  first_index int,
  last_index int
)
returns tid[]
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_nestloop = off
set enable_hashjoin = off
set enable_mergejoin = on
set enable_sort = on
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  return (
    select array_agg(l.row_id order by l.n)
    from (
      select t.ctid as row_id, i.n
      from unnest(task_indexes, attempts, msg_ids) with ordinality i (task_index, attempt, msg_id, n)
      join pgflow.step_tasks t on t.task_index = i.task_index
      where t.run_id = _lock_close_tasks.run_id
        and t.step_slug = _lock_close_tasks.step_slug
        and t.task_index >= first_index
        and t.task_index <= last_index
        and t.status = 'started'
        and (t.permanently_stalled_at is null or t.failed_at is null)
        and (_lock_close_tasks.worker_id is null
          or (t.last_worker_id = _lock_close_tasks.worker_id
            and t.attempts_count = i.attempt
            and (i.msg_id is null or t.message_id = i.msg_id)))
      order by t.task_index
      for update of t
    ) l
  );
end;
$$;
