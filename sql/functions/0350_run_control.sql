-- Ours: priority of a run, cancelling it, and going on with a failed one.

-- Starts a run with a priority, which the contract's start_flow cannot tell. Answers its id.
create or replace function pgflow.start_run(
  flow_slug text,
  input jsonb,
  run_id uuid default null,
  priority int default 0
)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run_id uuid;
begin
  perform pgflow._require_flow('start_run', start_run.flow_slug);
  select r.run_id into v_run_id
  from pgflow.start_flow(start_run.flow_slug, start_run.input, start_run.run_id) r;
  if start_run.priority <> 0 then
    insert into pgflow.run_priorities (run_id, priority) values (v_run_id, start_run.priority);
  end if;
  return v_run_id;
end;
$$;

-- Ends a running run as failed: started steps fail with the reason, open tasks are cancelled and their
-- messages leave the queues.
-- Workers that hold tasks of it learn so when they next extend their leases.
create or replace function pgflow.cancel_run(run_id uuid, reason text default 'Run cancelled')
returns setof pgflow.runs
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
  v_step record;
begin
  select r.* into v_run from pgflow.runs r where r.run_id = cancel_run.run_id for update;
  if not found then
    raise exception 'There is no run % in this database', cancel_run.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('cancel_run', v_run.flow_slug);
  if v_run.status <> 'started' then
    return query select r.* from pgflow.runs r where r.run_id = cancel_run.run_id;
    return;
  end if;

  perform 1 from pgflow.step_states ss
  where ss.run_id = cancel_run.run_id order by ss.step_slug collate "C" for update;

  update pgflow.runs r
  set status = 'failed', failed_at = greatest(now(), r.started_at)
  where r.run_id = cancel_run.run_id
  returning r.* into v_run;
  insert into pgflow.cancelled_runs as c (run_id, cancelled_at, reason)
  values (cancel_run.run_id, v_run.failed_at, cancel_run.reason)
  on conflict on constraint cancelled_runs_pkey do update
    set cancelled_at = excluded.cancelled_at, reason = excluded.reason;

  for v_step in
    update pgflow.step_states ss
    set status = 'failed', failed_at = greatest(now(), ss.started_at), error_message = cancel_run.reason
    where ss.run_id = cancel_run.run_id and ss.status = 'started'
    returning ss.step_slug, ss.failed_at
  loop
    perform pgflow._emit_step_event(
      cancel_run.run_id,
      v_step.step_slug,
      'failed',
      jsonb_build_object('error_message', cancel_run.reason, 'failed_at', v_step.failed_at)
    );
  end loop;
  perform pgflow._emit_run_event(
    cancel_run.run_id,
    'failed',
    jsonb_build_object(
      'flow_slug', v_run.flow_slug, 'error_message', cancel_run.reason, 'failed_at', v_run.failed_at
    )
  );
  perform pgflow._end_open_tasks(cancel_run.run_id, 'cancelled');
  perform pg_notify('pgflow_cancelled', cancel_run.run_id::text);
  return query select r.* from pgflow.runs r where r.run_id = cancel_run.run_id;
end;
$$;

-- Starts a failed run again where it failed: completed tasks are kept, failed ones and those that were
-- never finished (cancelled) are queued anew with a fresh budget of attempts. Answers how many. A tolerated failure
-- that was passed on, to a map that does not wait for all results, stays what it is.
create or replace function pgflow.retry_failed_tasks(run_id uuid)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
  v_step record;
  v_indexes int[];
  v_queued int := 0;
  v_queued_here int;
  v_done int;
begin
  select r.* into v_run from pgflow.runs r where r.run_id = retry_failed_tasks.run_id for update;
  if not found then
    raise exception 'There is no run % in this database', retry_failed_tasks.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('retry_failed_tasks', v_run.flow_slug);
  if v_run.status <> 'failed' then
    raise exception 'Run % is %, only a failed run can be retried', retry_failed_tasks.run_id, v_run.status
      using errcode = 'PF004';
  end if;

  update pgflow.runs r
  set status = 'started', failed_at = null
  where r.run_id = retry_failed_tasks.run_id;

  for v_step in
    select ss.step_slug, ss.status, ss.initial_tasks, ss.spawned_tasks
    from pgflow.step_states ss
    where ss.run_id = retry_failed_tasks.run_id and ss.status in ('failed', 'started')
    order by ss.step_slug collate "C"
    for update
  loop
    perform pgflow._forget_counts(retry_failed_tasks.run_id, v_step.step_slug);
    v_done := pgflow._reopen_ranges(retry_failed_tasks.run_id, v_step.step_slug);
    -- A step that failed before it had tasks failed by its condition, which is tested again.
    if v_done is null and not exists (
      select 1 from pgflow.step_tasks t
      where t.run_id = retry_failed_tasks.run_id and t.step_slug = v_step.step_slug
    ) then
      update pgflow.step_states ss
      set status = 'created', failed_at = null, started_at = null, error_message = null,
          remaining_tasks = null, spawned_tasks = 0, failed_tasks = 0
      where ss.run_id = retry_failed_tasks.run_id and ss.step_slug = v_step.step_slug;
      continue;
    end if;

    v_indexes := array(
      select t.task_index
      from pgflow.step_tasks t
      where t.run_id = retry_failed_tasks.run_id
        and t.step_slug = v_step.step_slug
        and t.status <> 'completed'
        and (v_done is null or not pgflow._has_result(t.run_id, t.step_slug, t.task_index))
    );
    perform pgflow._queue_again(v_run.flow_slug, retry_failed_tasks.run_id, v_step.step_slug, v_indexes);
    v_queued_here := cardinality(v_indexes);
    if v_done is not null then
      v_queued_here := v_step.initial_tasks - v_done;
    end if;
    v_queued := v_queued + v_queued_here;

    update pgflow.step_states ss
    set status = 'started',
        failed_at = null,
        error_message = null,
        failed_tasks = (
          select count(*) from pgflow.step_tasks t
          where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.status = 'failed'
        ),
        remaining_tasks = ss.initial_tasks - coalesce(
          v_done,
          (
            select count(*) from pgflow.step_tasks t
            where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.status = 'completed'
          )
        )
    where ss.run_id = retry_failed_tasks.run_id and ss.step_slug = v_step.step_slug;
    perform pgflow._emit_step_event(
      retry_failed_tasks.run_id,
      v_step.step_slug,
      'started',
      jsonb_build_object('started_at', now(), 'remaining_tasks', v_queued_here, 'remaining_deps', 0)
    );
  end loop;

  perform pgflow._advance_run(retry_failed_tasks.run_id);
  perform pg_notify('pgflow_work', v_run.flow_slug);
  return v_queued;
end;
$$;
