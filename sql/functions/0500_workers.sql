-- Worker registry (contract section 15).

-- Makes a worker's function known, so that it is started again when none is alive.
create or replace function pgflow.track_worker_function(function_name text, start_mode text default 'http')
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.worker_functions (function_name, start_mode, created_at, updated_at)
  values (
    track_worker_function.function_name, track_worker_function.start_mode, clock_timestamp(), clock_timestamp()
  )
  on conflict (function_name) do update
    set start_mode = excluded.start_mode, updated_at = clock_timestamp();
$$;

-- A worker has stopped in order.
create or replace function pgflow.mark_worker_stopped(worker_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  update pgflow.workers w
  set stopped_at = clock_timestamp()
  where w.worker_id = mark_worker_stopped.worker_id;
$$;

-- What "on delete set null" of step_tasks.last_worker_id means, without a foreign key that would be
-- checked for every claimed row. As a foreign key's, its action needs no right of who deletes. A worker
-- that gives the signs of life it promised is alive: it will find its row gone and write it again, and keeps
-- what it holds.
create or replace function pgflow._forget_deleted_workers()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.step_tasks t
  set last_worker_id = null
  from deleted d
  where t.last_worker_id = d.worker_id
    and (
      d.dead_after is null
      or d.stopped_at is not null
      or d.last_heartbeat_at < clock_timestamp() - d.dead_after
    );
  return null;
end;
$$;

create or replace trigger forget_deleted_workers
  after delete on pgflow.workers
  referencing old table as deleted
  for each statement
  execute function pgflow._forget_deleted_workers();

-- Deprecated one-phase poll, kept for old clients.
create or replace function pgflow.poll_for_tasks(
  queue_name text,
  vt int,
  qty int,
  max_poll_seconds int default 5,
  poll_interval_ms int default 100
)
returns setof pgflow.step_task_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise notice 'poll_for_tasks is deprecated: read with pgmq.read_with_poll, then call pgflow.start_tasks';
end;
$$;
