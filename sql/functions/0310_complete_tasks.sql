-- Completions (contract section 8). complete_tasks is the rule; complete_task is the same for one task.

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
-- from the worker and attempt that hold the task; without them (contract) from anyone. msg_ids, where they are given,
-- are those of the claims: a task that was queued anew, or whose step was set back, has another one, though the same
-- worker may have it again, at the same attempt.
create or replace function pgflow.complete_tasks(
  run_id uuid,
  step_slug text,
  task_indexes int[],
  outputs jsonb[],
  worker_id uuid,
  attempts int[],
  msg_ids bigint[]
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
  v_is_open boolean;
  v_step_type text;
  v_child text;
  v_first int;
  v_last int;
  v_rows tid[];
  v_done int[];
  v_ids bigint[];
  v_queue text;
  v_other_queue text;
begin
  select l.flow_slug, l.step_status, l.run_status, l.is_open
  into v_flow_slug, v_step_status, v_run_status, v_is_open
  from pgflow._lock_to_settle('complete_tasks', complete_tasks.run_id, complete_tasks.step_slug) l;
  if not v_is_open then
    if v_step_status is not null then -- else the run had failed before: then nothing changes
      perform pgflow._archive_task_messages(complete_tasks.run_id, complete_tasks.step_slug, task_indexes);
    end if;
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
            and t.attempts_count = attempts[1]
            and (msg_ids[1] is null or t.message_id = msg_ids[1])))
    ) then
      perform pgflow._fail_by_type_violation(
        v_flow_slug, complete_tasks.run_id, complete_tasks.step_slug, outputs[1], v_child
      );
      return row(1, '{}'::int[], 'failed', 'failed')::pgflow.settled_tasks;
    end if;
  end if;

  -- As in _claim: each lateral query is one look-up by primary key, whatever the statistics say, and rows
  -- are locked by one statement and changed by the next.
  select min(i), max(i) into v_first, v_last from unnest(task_indexes) i;
  if pgflow._are_close(v_first, v_last, cardinality(task_indexes)) then
    v_rows := pgflow._lock_close_tasks(
      complete_tasks.run_id, complete_tasks.step_slug, complete_tasks.worker_id, task_indexes, attempts, msg_ids,
      v_first, v_last
    );
  end if;
  if v_rows is null or cardinality(v_rows) < cardinality(task_indexes) then -- nearly never after the walk
    select array_agg(l.row_id order by i.n) into v_rows
    from (
      select u.task_index, u.attempt, u.msg_id, u.n
      from unnest(task_indexes, attempts, msg_ids) with ordinality u (task_index, attempt, msg_id, n)
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
          or (t.last_worker_id = complete_tasks.worker_id
            and t.attempts_count = i.attempt
            and (i.msg_id is null or t.message_id = i.msg_id)))
      for update
    ) l on true;
  end if;

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
    if v_step_type = 'map' then
      perform pgflow._pass_on_tasks(complete_tasks.run_id, complete_tasks.step_slug);
    end if;
    perform pgflow._count_done(
      v_flow_slug, complete_tasks.run_id, complete_tasks.step_slug, cardinality(v_done), outputs[1]
    );
    if exists (select 1 from pgflow.limits l where l.flow_slug = v_flow_slug and l.at_once is not null) then
      perform pg_notify('pgflow_work', v_flow_slug); -- there is room for others
    end if;
  end if;

  return pgflow._settled(complete_tasks.run_id, complete_tasks.step_slug, task_indexes, v_done);
end;
$$;

-- The same without messages, as workers of before call it.
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
set jit = off
as $$
begin
  return pgflow.complete_tasks(
    complete_tasks.run_id, complete_tasks.step_slug, task_indexes, outputs, complete_tasks.worker_id, attempts, null
  );
end;
$$;

-- Records the output of a task, and starts what follows from it (contract section 8).
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
    array[complete_task.output],
    null,
    null,
    null
  );
  return query
  select t.*
  from pgflow.step_tasks t
  where t.run_id = complete_task.run_id
    and t.step_slug = complete_task.step_slug
    and t.task_index = complete_task.task_index;
end;
$$;
