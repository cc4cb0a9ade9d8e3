-- Ours: read, start and input in one round trip, and claims without inputs, where both together cannot be had.

-- Claims up to qty tasks from the queue that the worker serves, fewer where their input is large (_claim_bytes),
-- answered in message order; or, without_input, so many whatever it is. of_run: of that run alone (_next_messages). jit is off here and in what settles: a
-- plan that avoids a method at any price looks expensive enough to compile, which takes longer than the call.
create or replace function pgflow._claim_next(
  function_name text,
  flow_slug text,
  worker_id uuid,
  qty int,
  lease_seconds int,
  without_input boolean default false,
  of_run uuid default null,
  is_only boolean default false
)
returns setof pgflow.claimed_task
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_sort = off
as $$
#variable_conflict use_column
declare
  v_queue text;
  v_step text;
  v_barred text[];
  v_paused uuid[];
begin
  perform pgflow._require_flow(function_name, _claim_next.flow_slug);
  v_paused := pgflow._paused_runs(_claim_next.flow_slug);
  if v_paused is null or of_run = any (v_paused) then
    return;
  end if;
  v_barred := pgflow._barred_steps(_claim_next.flow_slug, _claim_next.worker_id);
  select q.queue_name, q.step_slug into v_queue, v_step
  from pgflow._served_queue(_claim_next.flow_slug, _claim_next.worker_id) q;
  if pgflow._is_limited(_claim_next.flow_slug) then
    return query
    select c.run_id, c.step_slug, c.task_index, c.msg_id, c.attempt, c.input, c.flow_input, c.timeout, c.deaths
    from pgflow._claim_within_limits(
      _claim_next.flow_slug, v_queue, v_step, _claim_next.worker_id, qty, 0, null, lease_seconds, v_barred, v_paused, null,
      case when not without_input then pgflow._claim_bytes() end, without_input, of_run, is_only
    ) c
    where c.run_id is not null
    order by c.msg_id;
    return;
  end if;
  return query
  select c.*
  from pgflow._claim(
    _claim_next.flow_slug,
    pgflow._next_messages(
      _claim_next.flow_slug, v_queue, v_step, _claim_next.worker_id, qty, lease_seconds, v_barred,
      v_paused, of_run, is_only
    ),
    _claim_next.worker_id,
    v_queue,
    max_bytes => case when not without_input then pgflow._claim_bytes() end,
    without_input => without_input
  ) c
  order by c.msg_id;
end;
$$;

-- lease_seconds is the visibility timeout of the claim; by default that of the flow's slowest step.
create or replace function pgflow.claim_tasks(
  flow_slug text,
  worker_id uuid,
  qty int,
  lease_seconds int default null
)
returns setof pgflow.claimed_task
language plpgsql
security definer
rows 100
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.*
  from pgflow._claim_next(
    'claim_tasks', claim_tasks.flow_slug, claim_tasks.worker_id, claim_tasks.qty, claim_tasks.lease_seconds
  ) c;
end;
$$;

-- As claim_tasks, without the inputs: for a worker to which the server, or the network, cannot answer them
-- all. It asks for them one by one then (task_input), so that one that cannot be had costs none of the others.
create or replace function pgflow.claim_tasks_without_input(
  flow_slug text,
  worker_id uuid,
  qty int,
  lease_seconds int default null
)
returns setof pgflow.claimed_task
language plpgsql
security definer
rows 100
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.*
  from pgflow._claim_next(
    'claim_tasks_without_input',
    claim_tasks_without_input.flow_slug,
    claim_tasks_without_input.worker_id,
    claim_tasks_without_input.qty,
    claim_tasks_without_input.lease_seconds,
    without_input => true
  ) c;
end;
$$;
