-- Starting runs (contract sections 6.1 to 6.3).

-- Raises for an input that a flow with root maps cannot have.
create or replace function pgflow._refuse_input(flow_slug text, input jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if input is null then
    raise exception 'Flow % has root map steps but input is NULL', flow_slug;
  end if;
  raise exception 'Flow % has root map steps but input is not an array (got %)', flow_slug, jsonb_typeof(input);
end;
$$;

-- Writes a run with its steps, whose root maps have so many items, and starts those that are ready. One statement
-- writes both: steps may come to the flow at any moment.
create or replace function pgflow._begin_run(flow_slug text, run_id uuid, input jsonb, items int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run record;
begin
  with run as (
    insert into pgflow.runs (run_id, flow_slug, input, remaining_steps)
    values (
      _begin_run.run_id,
      _begin_run.flow_slug,
      _begin_run.input,
      (select count(*) from pgflow.steps s where s.flow_slug = _begin_run.flow_slug)
    )
    returning flow_slug, remaining_steps, started_at
  ), states as (
    insert into pgflow.step_states (flow_slug, run_id, step_slug, remaining_deps, initial_tasks)
    select s.flow_slug, _begin_run.run_id, s.step_slug, s.deps_count,
      case
        when s.step_type = 'single' then 1
        when s.deps_count = 0 then coalesce(
          items, case when jsonb_typeof(_begin_run.input) = 'array' then jsonb_array_length(_begin_run.input) end
        )
      end
    from pgflow.steps s
    where s.flow_slug = _begin_run.flow_slug
    order by s.step_index
  )
  select * into v_run from run;

  if items is null and exists ( -- a root map that came a moment ago
    select 1
    from pgflow.step_states ss
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where ss.run_id = _begin_run.run_id
      and ss.initial_tasks is null
      and s.step_type = 'map'
      and s.deps_count = 0
  ) then
    perform pgflow._refuse_input(_begin_run.flow_slug, _begin_run.input);
  end if;

  perform pgflow._emit_run_event(
    _begin_run.run_id,
    'started',
    jsonb_build_object(
      'flow_slug', v_run.flow_slug,
      'remaining_steps', v_run.remaining_steps,
      'started_at', v_run.started_at
    ),
    'input',
    _begin_run.input
  );
  perform pgflow._advance_run(_begin_run.run_id);
end;
$$;

-- Starts a run of a flow and answers its row; with the id of a run that is there, that one (contract
-- section 6.1).
create or replace function pgflow.start_flow(flow_slug text, input jsonb, run_id uuid default null)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run_id uuid := coalesce(start_flow.run_id, gen_random_uuid());
  v_root_maps boolean;
  v_length int;
begin
  v_root_maps := exists (
    select 1 from pgflow.steps s
    where s.flow_slug = start_flow.flow_slug and s.step_type = 'map' and s.deps_count = 0
  );
  if v_root_maps then
    if jsonb_typeof(start_flow.input) is distinct from 'array' then
      perform pgflow._refuse_input(start_flow.flow_slug, start_flow.input);
    end if;
    v_length := jsonb_array_length(start_flow.input);
  end if;

  perform pgflow._begin_run(start_flow.flow_slug, v_run_id, start_flow.input, v_length);
  return query select r.* from pgflow.runs r where r.run_id = v_run_id;
end;
$$;

-- Starts a run as start_flow does, and answers it with the states of its steps as one document (contract section 6.3).
create or replace function pgflow.start_flow_with_states(flow_slug text, input jsonb, run_id uuid default null)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run_id uuid;
begin
  perform pgflow._require_flow('start_flow_with_states', start_flow_with_states.flow_slug);
  select r.run_id into v_run_id
  from pgflow.start_flow(
    start_flow_with_states.flow_slug, start_flow_with_states.input, start_flow_with_states.run_id
  ) r;
  return pgflow._run_with_states(v_run_id);
end;
$$;
