-- Ours: what workers have told goes with the run, or with the worker, that it is about.

-- A process goes with the last of its ids.
create or replace function pgflow._forget_processes()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform 1
  from pgflow.worker_processes p
  where p.process_id in (select d.process_id from deleted d)
  order by p.process_id
  for update;
  delete from pgflow.worker_processes p
  where p.process_id in (select d.process_id from deleted d)
    and not exists (select 1 from pgflow.workers w where w.process_id = p.process_id);
  return null;
end;
$$;

create or replace trigger forget_processes
  after delete on pgflow.workers
  referencing old table as deleted
  for each statement
  execute function pgflow._forget_processes();

-- The spans of a run that is pruned go after it, piece by piece.
create or replace function pgflow._delete_times_of_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  delete from pgflow.step_times t using deleted d where t.run_id = d.run_id;
  delete from pgflow.lane_spans s
  using deleted d
  where s.run_id = d.run_id and not exists (select 1 from pgflow.leavings l where l.run_id = d.run_id);
  return null;
end;
$$;

create or replace trigger delete_times
  after delete on pgflow.runs
  referencing old table as deleted
  for each statement
  execute function pgflow._delete_times_of_runs();

create or replace function pgflow._truncate_times()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from pgflow.step_times) then
    truncate pgflow.step_times;
  end if;
  if exists (select 1 from pgflow.lane_spans) then
    truncate pgflow.lane_spans;
  end if;
  return null;
end;
$$;

create or replace trigger truncate_times
  after truncate on pgflow.runs
  for each statement
  execute function pgflow._truncate_times();
