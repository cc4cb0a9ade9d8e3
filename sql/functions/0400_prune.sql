-- prune_data_older_than (contract section 14.3). The interval must exceed the longest start delay.
-- Workers that promised signs of life (ours) stay until nothing that they held is left: those that live, and
-- those that died but were not yet taken over from. A run is locked before it goes, and looked at again
-- once it is locked: somebody may just have started it again. What others hold at the moment is left for
-- the next call: so are workers, whose tasks forget them, which touches tasks of runs that are not locked.
create or replace function pgflow._prune_workers(cutoff timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_patience text := current_setting('lock_timeout');
  v_workers int := 0;
begin
  begin
    perform set_config('lock_timeout', '100ms', true);
    delete from pgflow.workers w
    where w.last_heartbeat_at < cutoff and (w.dead_after is null or w.recovered_at is not null);
    get diagnostics v_workers = row_count;
    perform set_config('lock_timeout', v_patience, true);
  exception when lock_not_available then
    null;
  end;
  return v_workers;
end;
$$;

-- Removes runs that ended longer ago, with all that belongs to them, and what is as old of queues and
-- workers (contract section 14.3).
create or replace function pgflow.prune_data_older_than(retention_interval interval)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_cutoff timestamptz := now() - retention_interval;
  v_runs uuid[];
  v_queue record;
  v_archive text;
begin
  perform pgflow._prune_workers(v_cutoff);

  select array_agg(l.run_id) into v_runs
  from (
    select r.run_id
    from pgflow.runs r
    where r.completed_at < v_cutoff or r.failed_at < v_cutoff
    order by r.run_id
    for update skip locked
  ) l;

  for v_queue in
    select t.queue_name, array_agg(t.message_id order by t.message_id) as ids
    from pgflow.step_tasks t
    where t.run_id = any (v_runs) and t.message_id is not null
    group by t.queue_name
  loop
    if to_regclass(format('pgmq.%I', pgmq.format_table_name(v_queue.queue_name, 'q'))) is not null then
      perform pgmq.delete(v_queue.queue_name, v_queue.ids);
    end if;
  end loop;

  delete from pgflow.step_tasks t where t.run_id = any (v_runs);
  delete from pgflow.step_states ss where ss.run_id = any (v_runs);
  delete from pgflow.runs r where r.run_id = any (v_runs);

  for v_queue in
    select s.queue_name from pgflow.steps s
    union
    select lower(f.flow_slug) from pgflow.flows f where f.queue_mode = 'flow'
  loop
    v_archive := pgmq.format_table_name(v_queue.queue_name, 'a');
    if to_regclass(format('pgmq.%I', v_archive)) is not null then
      execute format('delete from pgmq.%I where archived_at < $1', v_archive) using v_cutoff;
    end if;
  end loop;
end;
$$;
