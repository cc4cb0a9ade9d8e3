-- Ours: claims of workers that serve a run of their own: what there is of that run comes before all else.

-- As claim_work claims, of one run of the flow alone; where is_only is not set, some of its retries may be left
-- (_take_of_run). Or of all of them, where run_id is null. is_patient: see _claim_ranges.
create or replace function pgflow._claim_of_run(
  flow_slug text,
  worker_id uuid,
  qty int,
  items int,
  known bigint[],
  lease_seconds int,
  but_steps text[],
  usable int,
  run_id uuid,
  is_only boolean,
  is_patient boolean default true
)
returns setof pgflow.claimed_work
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
  v_paused uuid[] := pgflow._paused_runs(_claim_of_run.flow_slug);
  v_but text[];
begin
  if v_paused is null or _claim_of_run.run_id = any (v_paused) then
    return;
  end if;
  v_but := but_steps || pgflow._barred_steps(_claim_of_run.flow_slug, _claim_of_run.worker_id);
  select q.queue_name, q.step_slug into v_queue, v_step
  from pgflow._served_queue(_claim_of_run.flow_slug, _claim_of_run.worker_id) q;
  if pgflow._is_limited(_claim_of_run.flow_slug) then
    return query
    select c.*
    from pgflow._claim_within_limits(
      _claim_of_run.flow_slug, v_queue, v_step, _claim_of_run.worker_id, qty, _claim_of_run.items, known,
      lease_seconds, v_but, v_paused, usable, pgflow._claim_bytes(), false, _claim_of_run.run_id, is_only,
      _claim_of_run.is_patient
    ) c;
    return;
  end if;

  return query
  select c.run_id, c.step_slug, c.task_index, null::int, c.msg_id, c.attempt, c.input, c.flow_input, c.timeout,
    c.deaths
  from pgflow._claim(
    _claim_of_run.flow_slug,
    pgflow._next_messages(
      _claim_of_run.flow_slug, v_queue, v_step, _claim_of_run.worker_id, qty, lease_seconds, v_but, v_paused,
      _claim_of_run.run_id, is_only
    ),
    _claim_of_run.worker_id,
    v_queue,
    max_bytes => pgflow._claim_bytes()
  ) c
  order by c.msg_id;
  if _claim_of_run.items > 0
    and v_queue is not null
    and not pgflow._is_to_be_alone(_claim_of_run.flow_slug, _claim_of_run.worker_id)
  then
    return query
    select c.*
    from pgflow._claim_ranges(
      _claim_of_run.flow_slug, v_step, _claim_of_run.worker_id, _claim_of_run.items, known, v_but,
      is_patient => _claim_of_run.is_patient, but_runs => v_paused, of_run => _claim_of_run.run_id
    ) c;
  end if;
end;
$$;

-- The same as claim_work for a worker with a run of its own: what that run has comes first, and what is left of the
-- claim goes to others; where is_only, to none.
create or replace function pgflow.claim_work(
  flow_slug text,
  worker_id uuid,
  qty int,
  items int,
  known bigint[],
  lease_seconds int,
  but_steps text[],
  usable int,
  own_run uuid,
  is_only boolean
)
returns setof pgflow.claimed_work
language plpgsql
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_row pgflow.claimed_work;
  v_limited pgflow.claimed_work;
  v_is_limited boolean := false;
  v_bytes bigint := pgflow._claim_bytes();
  v_tasks int := 0;
  v_items int := 0;
begin
  perform pgflow._require_flow('claim_work', claim_work.flow_slug);
  if is_only and own_run is null then
    return;
  end if;
  if is_only or exists ( -- else all that there is, is its
    select 1
    from pgflow.runs r
    where r.flow_slug = claim_work.flow_slug and r.status = 'started' and r.run_id <> own_run
  ) then
    for v_row in
      select c.*
      from pgflow._claim_of_run(
        claim_work.flow_slug, claim_work.worker_id, qty, claim_work.items, known, lease_seconds, but_steps, usable,
        own_run, is_only
      ) c
    loop
      if v_row.run_id is null then
        v_limited := v_row;
        v_is_limited := true;
        continue;
      end if;
      return next v_row;
      v_bytes := v_bytes - coalesce(pg_column_size(v_row.input), 0);
      if v_row.items is null then
        v_tasks := v_tasks + 1;
      elsif v_row.msg_id is null then -- no page
        v_items := v_items + v_row.items;
      end if;
    end loop;
  end if;
  if is_only
    or v_bytes <= 0
    or v_tasks > 0 and v_tasks >= qty
    or v_items > 0 and v_items >= claim_work.items
  then
    if v_is_limited then
      return next v_limited;
    end if;
    return;
  end if;
  -- Who has leased items keeps their map locked, and waits for no other.
  return query
  select c.*
  from pgflow._claim_of_run(
    claim_work.flow_slug, claim_work.worker_id, greatest(qty::bigint - v_tasks - v_items, 0)::int,
    greatest(claim_work.items::bigint - v_tasks - v_items, 0)::int, known, lease_seconds, but_steps,
    case when usable is not null then greatest(usable::bigint - v_tasks - v_items, 0)::int end,
    null, false, is_patient => v_items = 0
  ) c;
end;
$$;

-- claim_tasks_without_input for a worker with a run of its own.
create or replace function pgflow.claim_tasks_without_input(
  flow_slug text,
  worker_id uuid,
  qty int,
  lease_seconds int,
  own_run uuid,
  is_only boolean
)
returns setof pgflow.claimed_task
language plpgsql
security definer
rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function constant text := 'claim_tasks_without_input';
begin
  if is_only and own_run is null then
    return;
  end if;
  return query
  select c.*
  from pgflow._claim_next(
    v_function,
    claim_tasks_without_input.flow_slug,
    claim_tasks_without_input.worker_id,
    claim_tasks_without_input.qty,
    claim_tasks_without_input.lease_seconds,
    without_input => true,
    of_run => own_run,
    is_only => claim_tasks_without_input.is_only
  ) c;
  if not found and is_only is not true then
    return query
    select c.*
    from pgflow._claim_next(
      v_function,
      claim_tasks_without_input.flow_slug,
      claim_tasks_without_input.worker_id,
      claim_tasks_without_input.qty,
      claim_tasks_without_input.lease_seconds,
      without_input => true
    ) c;
  end if;
end;
$$;
