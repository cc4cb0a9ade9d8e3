-- prune_data_older_than (contract section 14.3). The interval must exceed the longest start delay.
create or replace function pgflow.prune_data_older_than(retention_interval interval)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cutoff timestamptz := now() - retention_interval;
  v_flow record;
  v_archive text;
begin
  delete from pgflow.workers w where w.last_heartbeat_at < v_cutoff;

  for v_flow in
    select t.flow_slug, array_agg(t.message_id order by t.message_id) as ids
    from pgflow.runs r
    join pgflow.step_tasks t on t.run_id = r.run_id
    where (r.completed_at < v_cutoff or r.failed_at < v_cutoff) and t.message_id is not null
    group by t.flow_slug
  loop
    if to_regclass(format('pgmq.%I', pgmq.format_table_name(v_flow.flow_slug, 'q'))) is not null then
      perform pgmq.delete(v_flow.flow_slug, v_flow.ids);
    end if;
  end loop;

  delete from pgflow.step_tasks t
  using pgflow.runs r
  where t.run_id = r.run_id and (r.completed_at < v_cutoff or r.failed_at < v_cutoff);
  delete from pgflow.step_states ss
  using pgflow.runs r
  where ss.run_id = r.run_id and (r.completed_at < v_cutoff or r.failed_at < v_cutoff);
  delete from pgflow.runs r where r.completed_at < v_cutoff or r.failed_at < v_cutoff;

  for v_flow in select f.flow_slug from pgflow.flows f loop
    v_archive := pgmq.format_table_name(v_flow.flow_slug, 'a');
    if to_regclass(format('pgmq.%I', v_archive)) is not null then
      execute format('delete from pgmq.%I where archived_at < $1', v_archive) using v_cutoff;
    end if;
  end loop;
end;
$$;
