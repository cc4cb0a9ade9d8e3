-- Ours: the state of a step as whoever settles finds it, and its lock.

-- Where a step's state is, and what it counts. Its latest version is looked at first: while a transaction is open
-- elsewhere all others stay, and come before it in the index.
create or replace function pgflow._latest_state(
  run_id uuid,
  step_slug text,
  out row_id tid,
  out status text,
  out initial_tasks int,
  out remaining_tasks int,
  out spawned_tasks int,
  out failed_tasks int
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
as $$
#variable_conflict use_column
begin
  select ss.ctid, ss.status, ss.initial_tasks, ss.remaining_tasks, ss.spawned_tasks,
    ss.failed_tasks
  into row_id, _latest_state.status, _latest_state.initial_tasks, _latest_state.remaining_tasks,
    _latest_state.spawned_tasks, _latest_state.failed_tasks
  from pgflow.step_states ss
  where (ss.run_id, ss.step_slug) >= (_latest_state.run_id, _latest_state.step_slug)
    and (ss.run_id, ss.step_slug) <= (_latest_state.run_id, _latest_state.step_slug)
  order by ss.run_id desc, ss.step_slug desc
  limit 1;
end;
$$;

-- Whether results of this step can be recorded, with the locks of the run and the step where they can: the step is
-- started and the run has not failed. Else what the caller is to be answered; a run that is gone, or has failed
-- already, is not waited for.
create or replace function pgflow._lock_to_settle(
  function_name text,
  run_id uuid,
  step_slug text,
  out flow_slug text,
  out step_status text,
  out run_status text,
  out is_open boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
as $$
#variable_conflict use_column
begin
  is_open := false;
  select r.flow_slug, r.status into _lock_to_settle.flow_slug, _lock_to_settle.run_status
  from pgflow.runs r
  where r.run_id = _lock_to_settle.run_id;
  if _lock_to_settle.flow_slug is not null then
    perform pgflow._require_flow(function_name, _lock_to_settle.flow_slug);
  end if;
  if coalesce(_lock_to_settle.run_status, 'failed') = 'failed' then
    perform pgflow._refuse_standby();
    return;
  end if;

  select r.status into _lock_to_settle.run_status
  from pgflow.runs r
  where r.run_id = _lock_to_settle.run_id
  for update;
  -- As in _latest_state.
  select ss.status into _lock_to_settle.step_status
  from pgflow.step_states ss
  where (ss.run_id, ss.step_slug) >= (_lock_to_settle.run_id, _lock_to_settle.step_slug)
    and (ss.run_id, ss.step_slug) <= (_lock_to_settle.run_id, _lock_to_settle.step_slug)
  order by ss.run_id desc, ss.step_slug desc
  limit 1
  for update;
  is_open := coalesce(
    _lock_to_settle.step_status = 'started' and _lock_to_settle.run_status <> 'failed', false
  );
end;
$$;
