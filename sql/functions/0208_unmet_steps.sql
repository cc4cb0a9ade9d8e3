-- The ready steps of a run whose condition is not met (contract section 10). when_unmet is 'unknown' where it
-- cannot be told, since the parents' outputs pass the limit of jsonb.
create or replace function pgflow._unmet_steps(run_id uuid, flow_slug text, run_input jsonb)
returns table (step_slug text, step_index int, when_unmet text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select ss.step_slug, s.step_index, case when c.met is null then 'unknown' else s.when_unmet end
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  cross join lateral (
    select pgflow._condition_met(s, _unmet_steps.run_id, _unmet_steps.run_input) as met
    offset 0
  ) c
  where ss.run_id = _unmet_steps.run_id
    and ss.status = 'created'
    and ss.remaining_deps = 0
    and (s.required_input_pattern is not null or s.forbidden_input_pattern is not null)
    and (not c.met or (c.met is null and s.deps_count > 0));
end;
$$;
