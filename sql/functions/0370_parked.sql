-- Ours: tasks whose failure is recorded last of their run, and when that is.

-- These workers (all ids of one) hold back so many tasks of these runs, and none of others. Answers of each run
-- how many of its tasks are neither done nor held back by anybody alive: 0 or less if none. Tasks that are yet
-- to be spawned count. Runs that are gone are missing, and those of flows that the caller may not use, of which
-- it cannot tell anything either.
create or replace function pgflow.report_parked(
  mine uuid[],
  worker_ids uuid[],
  run_ids uuid[],
  tasks int[]
)
returns table (run_id uuid, tasks_left bigint)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_queues text[] := pgflow._granted_queues('report_parked');
  v_flows text[] := pgflow._granted_flows('report_parked');
begin
  if v_queues is not null then
    mine := array(
      select w.worker_id from pgflow.workers w
      where w.worker_id = any (mine || report_parked.worker_ids) and lower(w.queue_name) = any (v_queues)
    );
    select
      coalesce(array_agg(u.worker_id), '{}'), coalesce(array_agg(u.run_id), '{}'), coalesce(array_agg(u.tasks), '{}')
    into worker_ids, run_ids, tasks
    from unnest(report_parked.worker_ids, report_parked.run_ids, report_parked.tasks) u (worker_id, run_id, tasks)
    join pgflow.runs r on r.run_id = u.run_id and r.flow_slug = any (v_flows)
    where u.worker_id = any (mine);
  end if;

  delete from pgflow.parked p
  where not exists (
      select 1 from pgflow.workers w where w.worker_id = p.worker_id and w.stopped_at is null
    )
    or p.worker_id = any (mine || report_parked.worker_ids)
    and not exists (
      select 1
      from unnest(report_parked.worker_ids, report_parked.run_ids) u (worker_id, run_id)
      where u.worker_id = p.worker_id and u.run_id = p.run_id
    );
  insert into pgflow.parked as p (worker_id, run_id, tasks)
  select u.worker_id, u.run_id, u.tasks
  from unnest(report_parked.worker_ids, report_parked.run_ids, report_parked.tasks) u (worker_id, run_id, tasks)
  order by u.run_id, u.worker_id
  on conflict on constraint parked_pkey do update
    set tasks = excluded.tasks
    where p.tasks <> excluded.tasks;

  return query
  select g.run_id,
    case
      when bool_or(s.status = 'failed') then 0 -- the run is over
      else coalesce(sum(s.remaining_tasks) filter (where s.status = 'started'), 0)
    end - coalesce((
      select sum(p.tasks)
      from pgflow.parked p
      join pgflow.workers w on w.worker_id = p.worker_id
      where p.run_id = g.run_id
        and w.stopped_at is null
        and (w.dead_after is null or w.last_heartbeat_at > clock_timestamp() - w.dead_after)
    ), 0)
  from (select distinct u.run_id from unnest(report_parked.run_ids) u (run_id)) g
  join pgflow.step_states s on s.run_id = g.run_id
  group by g.run_id;
end;
$$;
