-- Ours: lets workers drain. They claim nothing more, end what they run, and stop (contract worker section 2). All that
-- serve a flow, or the one with this name or id, or both: that one if it serves the flow. A worker is a process: it
-- stops as a whole, whatever else it serves.
create or replace function pgflow.drain_workers(flow_slug text default null, worker text default null)
returns table (worker_id uuid, queue_name text, name text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if drain_workers.flow_slug is null and drain_workers.worker is null then
    raise exception 'Which workers?' using errcode = 'null_value_not_allowed',
      hint = 'Name a flow or a worker.';
  end if;
  if drain_workers.flow_slug is not null then
    perform pgflow._require_flow('drain_workers', drain_workers.flow_slug);
    perform pgflow._require_stored_flow(drain_workers.flow_slug);
  end if;
  return query
  update pgflow.workers w
  set deprecated_at = clock_timestamp()
  where w.stopped_at is null
    and w.deprecated_at is null
    and coalesce(w.queue_name = any ((select pgflow._granted_queues('drain_workers'))::text[]), true)
    and (
      drain_workers.flow_slug is null
      or w.queue_name = lower(drain_workers.flow_slug)
      or exists (
        select 1 from pgflow.steps s
        where s.flow_slug = drain_workers.flow_slug and s.queue_name = w.queue_name
      )
    )
    and (
      drain_workers.worker is null
      or w.worker_id::text = lower(drain_workers.worker)
      or w.function_name = drain_workers.worker
    )
  returning w.worker_id, w.queue_name, w.function_name;
end;
$$;
