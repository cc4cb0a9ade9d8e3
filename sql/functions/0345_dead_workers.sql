-- Ours: recovery by heartbeat. A worker that promised signs of life (dead_after) and broke its promise is
-- dead; its tasks are queued again at once and the attempt is not charged: the machine failed, not the
-- task. A task that three workers died with, the last time without another suspect beside it, is another
-- matter: it is condemned (0304_next_messages.sql hands it out to be failed).

-- Takes over from whoever is over; how many tasks were queued again. Of all workers those whose last sign of
-- life is older than they promised, by the server's clock: while the server was not up nobody could give any.
-- Of these worker_ids those without a sign since the one that was last_seen, whatever the clock says, and
-- those that have stopped for as long as they promised signs.
create or replace function pgflow._recover(
  worker_ids uuid[] default null,
  last_seen timestamptz[] default null
)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_over uuid[];
  v_died uuid[];
begin
  select array_agg(s.worker_id), coalesce(array_agg(s.worker_id) filter (where s.died), '{}')
  into v_over, v_died
  from (
    select w.worker_id, w.stopped_at is null as died
    from pgflow.workers w
    where w.dead_after is not null
      and w.recovered_at is null
      and (worker_ids is null or w.worker_id = any (worker_ids))
      and case
        when worker_ids is null then
          greatest(w.last_heartbeat_at, w.stopped_at, pg_postmaster_start_time())
            < clock_timestamp() - w.dead_after
        when w.stopped_at is not null then
          w.stopped_at not between clock_timestamp() - w.dead_after and clock_timestamp()
        else
          w.last_heartbeat_at not between clock_timestamp() - w.dead_after and clock_timestamp()
          and exists (
            select 1 from unnest(worker_ids, last_seen) l (worker_id, last_seen)
            where l.worker_id = w.worker_id and l.last_seen = w.last_heartbeat_at
          )
      end
    order by w.worker_id
    for update skip locked
  ) s;
  return case when v_over is null then 0 else pgflow._take_over(v_over, v_died) end;
end;
$$;

-- Takes over from the dead by the server's clock. Answers how many tasks were queued again.
create or replace function pgflow.recover_dead_workers()
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return pgflow._recover();
end;
$$;

-- The workers that may have to be taken over from: for whoever watches how their signs of life move on. A
-- clock that jumps, a server that was down and an outage of the watcher's own cannot deceive such a one.
create or replace function pgflow.watched_workers()
returns table (worker_id uuid, last_heartbeat_at timestamptz, dead_after float8, stopped boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select w.worker_id, w.last_heartbeat_at, extract(epoch from w.dead_after)::float8, w.stopped_at is not null
  from pgflow.workers w
  where w.dead_after is not null
    and w.recovered_at is null
    and coalesce(lower(w.queue_name) = any ((select pgflow._granted_queues('watched_workers'))::text[]), true);
end;
$$;

-- Takes over from these workers, if they have given no sign of life since the one that was seen last; from
-- one that has stopped once it has been over for as long as it promised signs. Answers how many tasks.
create or replace function pgflow.recover_workers(worker_ids uuid[], last_seen timestamptz[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return pgflow._recover(coalesce(worker_ids, '{}'), last_seen);
end;
$$;

-- This id is given up by the worker that used it: whatever it still holds, perhaps by a claim whose answer
-- was lost, is queued again. Answers how many tasks that were.
create or replace function pgflow.retire_worker(worker_id uuid)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1 from pgflow.workers w
    where w.worker_id = retire_worker.worker_id
      and w.queue_name <> ''
      and lower(w.queue_name) <> all (pgflow._granted_queues('retire_worker'))
  ) then
    return 0; -- not the caller's: it may not use that flow
  end if;
  insert into pgflow.workers (worker_id, queue_name, function_name, dead_after)
  values (retire_worker.worker_id, '', 'retired', interval '0')
  on conflict on constraint workers_pkey do nothing;
  return pgflow._take_over(array[retire_worker.worker_id], '{}');
end;
$$;
