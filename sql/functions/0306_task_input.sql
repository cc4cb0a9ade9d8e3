-- Ours: the input of one task, which a claim answers too.

-- What a claim answers as input and flow_input of one task, or why it has no input.
create or replace function pgflow.task_input(run_id uuid, step_slug text, task_index int)
returns table (input jsonb, flow_input jsonb, problem text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select i.input,
    case when s.step_type = 'single' and s.deps_count = 0 then r.input end,
    case
      when i.input is null and s.step_type = 'single'
        then pgflow._missing_input(r.flow_slug, r.run_id, s.step_slug)
    end
  from pgflow.step_tasks t
  join pgflow.runs r on r.run_id = t.run_id
  join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
  cross join lateral (
    select case
      when s.step_type = 'map' then coalesce(
        t.input,
        (select e from pgflow._map_elements(t.run_id, t.step_slug, t.task_index, t.task_index + 1) e)
      )
      when s.deps_count = 0 then '{}'::jsonb
      else pgflow._deps_outputs(t.flow_slug, t.run_id, t.step_slug)
    end as input
    offset 0
  ) i
  where t.run_id = task_input.run_id
    and t.step_slug = task_input.step_slug
    and t.task_index = task_input.task_index
    and coalesce(t.flow_slug = any ((select pgflow._granted_flows('task_input'))::text[]), true);
$$;

-- The same for a worker whose processes read what is large by themselves (output_page): the input of a step of one
-- task has those of its parents' outputs that come with a claim together, small ones first. The others are in paged,
-- each with the items of the map, or NULL for the one value of a step of one task. NULL: there are none.
create or replace function pgflow.paged_input(run_id uuid, step_slug text, task_index int)
returns table (input jsonb, flow_input jsonb, paged jsonb)
language plpgsql
stable
security definer
rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
begin
  select r.flow_slug into v_flow_slug
  from pgflow.runs r
  join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = paged_input.step_slug
  where r.run_id = paged_input.run_id and s.step_type = 'single' and s.deps_count > 0;
  if not found then
    return query
    select i.input, i.flow_input, null::jsonb
    from pgflow.task_input(paged_input.run_id, paged_input.step_slug, paged_input.task_index) i;
    return;
  end if;
  perform pgflow._require_flow('paged_input', v_flow_slug);

  return query
  select coalesce(
      pgflow._object_of(
        array_agg(p.slug) filter (where p.fits), array_agg(p.output) filter (where p.fits)
      ),
      '{}'::jsonb
    ),
    null::jsonb,
    jsonb_object_agg(p.slug, p.items) filter (where not p.fits)
  from (
    select ss.step_slug as slug, coalesce(ss.output, 'null'::jsonb) as output,
      case when s.step_type = 'map' then ss.initial_tasks end as items,
      o.size is not null
        and sum(o.size) over (order by o.size, ss.step_slug collate "C")
          <= least(pgflow._claim_bytes(), pgflow._single_bytes()) as fits
    from pgflow.deps d
    join pgflow.steps s on s.flow_slug = d.flow_slug and s.step_slug = d.dep_slug
    join pgflow.step_states ss
      on ss.run_id = paged_input.run_id and ss.step_slug = d.dep_slug and ss.status = 'completed'
    cross join lateral (
      select case
        when ss.output is not null then pg_column_size(ss.output)
        when not pgflow._array_is_missing(ss.run_id, ss.step_slug) then 4
      end as size
    ) o
    where d.flow_slug = v_flow_slug and d.step_slug = paged_input.step_slug
  ) p;
end;
$$;
