-- Ours: giving claimed tasks back and keeping hold of them.

-- Hands back tasks that were claimed but not begun: queued again, visible at once, and the attempt that
-- the claim had charged is taken off. Answers how many were still held by this worker.
create or replace function pgflow.release_tasks(flow_slug text, worker_id uuid, msg_ids bigint[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_queue text := (select q.queue_name from pgflow._served_queue(release_tasks.flow_slug, release_tasks.worker_id) q);
  v_rows tid[];
  v_ids bigint[];
begin
  perform pgflow._require_flow('release_tasks', release_tasks.flow_slug);
  -- Locked by one statement, changed by the next: see _claim.
  select array_agg(l.row_id) into v_rows
  from (select u.id from unnest(msg_ids) u (id) order by u.id) m
  cross join lateral (
    select t.ctid as row_id
    from pgflow.step_tasks t
    where t.queue_name = v_queue
      and t.message_id = m.id
      and t.flow_slug = release_tasks.flow_slug
      and t.status = 'started'
      and t.last_worker_id = release_tasks.worker_id
      and t.permanently_stalled_at is null
    for update
  ) l;

  with released as (
    update pgflow.step_tasks t
    set status = 'queued',
        started_at = null,
        last_worker_id = null,
        lease_until = null,
        attempts_count = greatest(t.attempts_count - 1, 0)
    from unnest(v_rows) h (row_id)
    where t.ctid = h.row_id
    returning t.message_id
  )
  select array_agg(r.message_id) into v_ids from released r;

  if v_ids is null then
    return 0;
  end if;
  perform pgflow.set_vt_batch(v_queue, v_ids, array_fill(0, array[cardinality(v_ids)]));
  perform pg_notify('pgflow_work', release_tasks.flow_slug);
  return cardinality(v_ids);
end;
$$;

-- Extends the lease of these tasks to lease_seconds from now and answers the ids that are no longer
-- this worker's: finished, taken over, cancelled or skipped. Whoever holds those may drop them.
create or replace function pgflow.extend_tasks(
  flow_slug text,
  worker_id uuid,
  msg_ids bigint[],
  lease_seconds int
)
returns setof bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_queue text := (select q.queue_name from pgflow._served_queue(extend_tasks.flow_slug, extend_tasks.worker_id) q);
  v_rows tid[];
  v_runs uuid[];
  v_steps text[];
  v_held bigint[];
begin
  perform pgflow._require_flow('extend_tasks', extend_tasks.flow_slug);
  select array_agg(l.row_id), array_agg(l.run_id), array_agg(l.step_slug) into v_rows, v_runs, v_steps
  from (select u.id from unnest(msg_ids) u (id) order by u.id) m
  cross join lateral (
    select t.ctid as row_id, t.run_id, t.step_slug
    from pgflow.step_tasks t
    where t.queue_name = v_queue
      and t.message_id = m.id
      and t.flow_slug = extend_tasks.flow_slug
      and t.status = 'started'
      and t.last_worker_id = extend_tasks.worker_id
    for update
  ) l;

  with held as materialized (
    select h.row_id, h.run_id, h.step_slug from unnest(v_rows, v_runs, v_steps) h (row_id, run_id, step_slug)
  ), live as materialized (
    select g.run_id, g.step_slug
    from (select distinct h.run_id, h.step_slug from held h) g
    cross join lateral (
      select 1
      from pgflow.runs r
      join pgflow.step_states ss on ss.run_id = r.run_id
      where r.run_id = g.run_id
        and r.status = 'started'
        and ss.step_slug = g.step_slug
        and ss.status = 'started'
      offset 0
    ) l
  ), extended as (
    update pgflow.step_tasks t
    set lease_until = clock_timestamp() + make_interval(secs => lease_seconds)
    from held h
    join live l on l.run_id = h.run_id and l.step_slug = h.step_slug
    where t.ctid = h.row_id
    returning t.message_id
  )
  select array_agg(e.message_id) into v_held from extended e;

  if v_held is not null then
    perform pgflow.set_vt_batch(
      v_queue, v_held, array_fill(lease_seconds, array[cardinality(v_held)])
    );
  end if;
  return query select m.id from unnest(msg_ids) m (id) where m.id <> all (coalesce(v_held, '{}'));
end;
$$;
