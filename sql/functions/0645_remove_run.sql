-- Ours: lets go of one run that has ended, whenever that was: at once for whoever asks for it, and then of up to
-- max_rows tasks or pages of it a call, until is_done. Of a run that nobody knows nothing is left.
create or replace function pgflow.remove_run(
  run_id uuid,
  max_rows int default 5000,
  out removed int,
  out is_done boolean
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
as $$
#variable_conflict use_column
declare
  v_flow text;
  v_status text;
begin
  removed := 0;
  is_done := false;
  select r.flow_slug, r.status into v_flow, v_status
  from pgflow.runs r
  where r.run_id = remove_run.run_id
  for update;
  if found then
    perform pgflow._require_flow('remove_run', v_flow);
    if v_status = 'started' then
      raise exception 'Run % is started, only a run that has ended can be removed', remove_run.run_id
        using errcode = 'PF004';
    end if;
    insert into pgflow.leavings (run_id, flow_slug) values (remove_run.run_id, v_flow);
    delete from pgflow.step_states ss where ss.run_id = remove_run.run_id;
    delete from pgflow.runs r where r.run_id = remove_run.run_id;
    return;
  end if;

  select l.flow_slug into v_flow from pgflow.leavings l where l.run_id = remove_run.run_id for update;
  if not found then
    is_done := true;
    return;
  end if;
  perform pgflow._require_flow('remove_run', v_flow);
  select g.removed into removed
  from pgflow._remove_leavings(remove_run.run_id, greatest(max_rows, 1), 67108864) g;
end;
$$;
