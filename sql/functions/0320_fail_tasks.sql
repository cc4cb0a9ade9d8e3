-- Failures (contract section 9). fail_tasks is the rule; fail_task is the same for one task.

-- A task of the step has used up its attempts: what happens to the step and the run is up to
-- when_exhausted. Caller holds the locks of the run and the step.
create or replace function pgflow._exhaust_step(
  flow_slug text,
  run_id uuid,
  step_slug text,
  error_message text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_mode text;
  v_skipped_at timestamptz;
begin
  select s.when_exhausted into v_mode
  from pgflow.steps s
  where s.flow_slug = _exhaust_step.flow_slug and s.step_slug = _exhaust_step.step_slug;

  if v_mode = 'fail' then
    perform pgflow._fail_step_and_run(
      _exhaust_step.flow_slug, _exhaust_step.run_id, _exhaust_step.step_slug, _exhaust_step.error_message
    );
    return;
  end if;

  perform pgflow._note_counts(ss.run_id, ss.step_slug, 0, 0, ss.remaining_tasks)
  from pgflow.step_states ss
  where ss.run_id = _exhaust_step.run_id and ss.step_slug = _exhaust_step.step_slug;
  update pgflow.step_states ss
  set status = 'skipped',
      skip_reason = 'handler_failed',
      skipped_at = greatest(now(), ss.created_at),
      remaining_tasks = null,
      error_message = _exhaust_step.error_message
  where ss.run_id = _exhaust_step.run_id and ss.step_slug = _exhaust_step.step_slug
  returning ss.skipped_at into v_skipped_at;
  update pgflow.runs r
  set remaining_steps = r.remaining_steps - 1
  where r.run_id = _exhaust_step.run_id;
  perform pgflow._end_open_tasks(_exhaust_step.run_id, 'skipped', array[_exhaust_step.step_slug]);
  perform pgflow._emit_step_event(
    _exhaust_step.run_id,
    _exhaust_step.step_slug,
    'skipped',
    jsonb_build_object(
      'skip_reason', 'handler_failed',
      'error_message', _exhaust_step.error_message,
      'skipped_at', v_skipped_at
    )
  );

  if v_mode = 'skip-cascade' then
    perform pgflow._cascade_force_skip_steps(
      _exhaust_step.run_id, _exhaust_step.step_slug, 'handler_failed'
    );
    perform pgflow.maybe_complete_run(_exhaust_step.run_id);
  else
    perform pgflow._withdraw_ahead(_exhaust_step.run_id, _exhaust_step.step_slug);
    perform pgflow._release_dependents_of_skipped(_exhaust_step.run_id, array[_exhaust_step.step_slug]);
    perform pgflow._advance_run(_exhaust_step.run_id);
  end if;
end;
$$;

-- Tasks of the step have failed for good: done and tolerated, or the end of the step. Caller holds the
-- locks of the run and the step.
create or replace function pgflow._count_failed(
  flow_slug text,
  run_id uuid,
  step_slug text,
  failed int,
  error_message text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_failed_tasks int;
  v_initial_tasks int;
begin
  update pgflow.step_states ss
  set failed_tasks = ss.failed_tasks + _count_failed.failed
  where ss.run_id = _count_failed.run_id and ss.step_slug = _count_failed.step_slug
  returning ss.failed_tasks, ss.initial_tasks into v_failed_tasks, v_initial_tasks;

  if v_failed_tasks > pgflow._tolerated_failures(
    _count_failed.flow_slug, _count_failed.step_slug, v_initial_tasks
  ) then
    perform pgflow._note_counts(_count_failed.run_id, _count_failed.step_slug, 0, _count_failed.failed);
    perform pgflow._exhaust_step(
      _count_failed.flow_slug, _count_failed.run_id, _count_failed.step_slug, _count_failed.error_message
    );
  else
    perform pgflow._pass_on_tasks(_count_failed.run_id, _count_failed.step_slug);
    perform pgflow._count_done(
      _count_failed.flow_slug, _count_failed.run_id, _count_failed.step_slug, _count_failed.failed, null
    );
  end if;
end;
$$;

-- Ours: fails many tasks of one step. Fenced as complete_tasks is. permanent[i] fails at once,
-- whatever attempts are left.
create or replace function pgflow.fail_tasks(
  run_id uuid,
  step_slug text,
  task_indexes int[],
  error_messages text[],
  worker_id uuid,
  attempts int[],
  permanent boolean[],
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
  v_max_attempts int;
  v_base_delay int;
  v_rows tid[];
  v_retries boolean[];
  v_done int[];
  v_failed_indexes int[];
  v_retry_queues text[];
  v_retry_ids bigint[];
  v_retry_delays int[];
  v_error text;
  v_failed int;
begin
  select l.flow_slug, l.step_status, l.run_status, l.is_open
  into v_flow_slug, v_step_status, v_run_status, v_is_open
  from pgflow._lock_to_settle('fail_tasks', fail_tasks.run_id, fail_tasks.step_slug) l;
  if not v_is_open then
    perform pgflow._archive_task_messages(fail_tasks.run_id, fail_tasks.step_slug, task_indexes);
    return row(0, task_indexes, v_step_status, v_run_status)::pgflow.settled_tasks;
  end if;

  select coalesce(s.opt_max_attempts, f.opt_max_attempts), coalesce(s.opt_base_delay, f.opt_base_delay)
  into v_max_attempts, v_base_delay
  from pgflow.steps s
  join pgflow.flows f on f.flow_slug = s.flow_slug
  where s.flow_slug = v_flow_slug and s.step_slug = fail_tasks.step_slug;

  -- Locked by one statement, changed by the next: see _claim.
  select array_agg(l.row_id order by i.n),
    array_agg(
      l.attempts_count < v_max_attempts and not l.is_stalled and not coalesce(i.permanent, false)
      order by i.n
    )
  into v_rows, v_retries
  from (
    select u.task_index, u.attempt, u.permanent, u.msg_id, u.n
    from unnest(task_indexes, attempts, permanent, msg_ids)
      with ordinality u (task_index, attempt, permanent, msg_id, n)
    order by u.task_index
  ) i
  left join lateral (
    select t.ctid as row_id, t.attempts_count,
      t.permanently_stalled_at is not null as is_stalled -- its message is gone: no retry
    from pgflow.step_tasks t
    where t.run_id = fail_tasks.run_id
      and t.step_slug = fail_tasks.step_slug
      and t.task_index = i.task_index
      and t.status = 'started'
      and (t.permanently_stalled_at is null or t.failed_at is null)
      and (fail_tasks.worker_id is null
        or (t.last_worker_id = fail_tasks.worker_id
          and t.attempts_count = i.attempt
          and (i.msg_id is null or t.message_id = i.msg_id)))
    for update
  ) l on true;

  with settled as (
    update pgflow.step_tasks t
    set status = case when h.retry then 'queued' else 'failed' end,
        started_at = case when h.retry then null else t.started_at end,
        failed_at = case when h.retry then null else greatest(now(), t.started_at) end,
        error_message = h.error_message
    from unnest(v_rows, error_messages, v_retries) h (row_id, error_message, retry)
    where t.ctid = h.row_id
    returning t.task_index, t.message_id, t.queue_name, t.status, t.attempts_count, t.error_message
  )
  select
    array_agg(s.task_index),
    array_agg(s.task_index) filter (where s.status = 'failed'),
    array_agg(s.queue_name) filter (where s.status = 'queued' and s.message_id is not null),
    array_agg(s.message_id) filter (where s.status = 'queued' and s.message_id is not null),
    array_agg(pgflow.calculate_retry_delay(v_base_delay, s.attempts_count))
      filter (where s.status = 'queued' and s.message_id is not null),
    coalesce(
      (array_agg(s.error_message order by s.task_index) filter (where s.status = 'failed'))[1],
      (array_agg(s.error_message order by s.task_index))[1]
    ),
    count(*) filter (where s.status = 'failed')
  into v_done, v_failed_indexes, v_retry_queues, v_retry_ids, v_retry_delays, v_error, v_failed
  from settled s;

  if v_failed_indexes is not null then
    perform pgflow._archive_task_messages(fail_tasks.run_id, fail_tasks.step_slug, v_failed_indexes);
  end if;
  perform pgflow._set_vt(v_retry_queues, v_retry_ids, v_retry_delays);
  if v_done is not null then
    perform pgflow._note_counts(fail_tasks.run_id, fail_tasks.step_slug, cardinality(v_done));
    if pgflow._fails_alike(v_flow_slug, fail_tasks.run_id, fail_tasks.step_slug) then
      if v_failed > 0 then
        update pgflow.step_states ss
        set failed_tasks = ss.failed_tasks + v_failed
        where ss.run_id = fail_tasks.run_id and ss.step_slug = fail_tasks.step_slug;
        perform pgflow._note_counts(fail_tasks.run_id, fail_tasks.step_slug, 0, v_failed);
      end if;
      perform pgflow._exhaust_step(v_flow_slug, fail_tasks.run_id, fail_tasks.step_slug, v_error);
    elsif v_failed > 0 then
      perform pgflow._count_failed(v_flow_slug, fail_tasks.run_id, fail_tasks.step_slug, v_failed, v_error);
    end if;
    if exists (select 1 from pgflow.limits l where l.flow_slug = v_flow_slug and l.at_once is not null) then
      perform pg_notify('pgflow_work', v_flow_slug); -- there is room for others
    end if;
  end if;

  return pgflow._settled(fail_tasks.run_id, fail_tasks.step_slug, task_indexes, v_done);
end;
$$;

-- The same without messages, as workers of before call it.
create or replace function pgflow.fail_tasks(
  run_id uuid,
  step_slug text,
  task_indexes int[],
  error_messages text[],
  worker_id uuid default null,
  attempts int[] default null,
  permanent boolean[] default null
)
returns pgflow.settled_tasks
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  return pgflow.fail_tasks(
    fail_tasks.run_id, fail_tasks.step_slug, task_indexes, error_messages, fail_tasks.worker_id, attempts, permanent,
    null
  );
end;
$$;

-- Records that an attempt of a task failed: it is tried again, or fails for good (contract section 9).
create or replace function pgflow.fail_task(run_id uuid, step_slug text, task_index int, error_message text)
returns setof pgflow.step_tasks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow.fail_tasks(
    fail_task.run_id,
    fail_task.step_slug,
    array[fail_task.task_index],
    array[fail_task.error_message],
    null,
    null,
    null,
    null
  );
  return query
  select t.*
  from pgflow.step_tasks t
  where t.run_id = fail_task.run_id
    and t.step_slug = fail_task.step_slug
    and t.task_index = fail_task.task_index;
end;
$$;
