-- Removes a flow with its runs: its queues, in whatever spelling they are listed, then its rows (contract section 4.7).
create or replace function pgflow.delete_flow_and_data(p_flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_queues text[];
  v_queue text;
begin
  perform pgflow._lock_definition(p_flow_slug);
  v_queues := array(
    select pgflow._listed_queue_name(q.queue_name)
    from (
      select s.queue_name from pgflow.steps s where s.flow_slug = p_flow_slug
      union
      select lower(f.flow_slug) from pgflow.flows f
      where f.flow_slug = p_flow_slug and f.queue_mode = 'flow'
    ) q
    where exists (select 1 from pgflow.flows f where f.flow_slug = p_flow_slug)
    order by q.queue_name collate "C"
  );
  -- In the order of everybody else's locks: who settles has its run's and its tasks', who claims its tasks', and
  -- both want the queue after that. Whoever has changed a run twice looks whether its flow is there, so the flow
  -- comes after the runs; and once more those that were being started while we had not locked it.
  perform 1 from pgflow.runs r where r.flow_slug = p_flow_slug order by r.run_id for update;
  perform 1 from pgflow.flows f where f.flow_slug = p_flow_slug for update;
  perform 1 from pgflow.runs r where r.flow_slug = p_flow_slug order by r.run_id for update;
  delete from pgflow.step_tasks t using pgflow.runs r
  where r.flow_slug = p_flow_slug and t.run_id = r.run_id;
  perform pgflow._drop_leavings(p_flow_slug);
  perform pgflow._drop_loads(array(select l.run_id from pgflow.loads l where l.flow_slug = p_flow_slug));
  foreach v_queue in array v_queues loop
    perform pgmq.drop_queue(v_queue);
  end loop;
  delete from pgflow.step_states s where s.flow_slug = p_flow_slug;
  delete from pgflow.runs r where r.flow_slug = p_flow_slug;
  perform pgflow._drop_loads(array(select l.run_id from pgflow.loads l where l.flow_slug = p_flow_slug));
  delete from pgflow.deps d where d.flow_slug = p_flow_slug;
  delete from pgflow.steps s where s.flow_slug = p_flow_slug;
  delete from pgflow.flows f where f.flow_slug = p_flow_slug;
end;
$$;
