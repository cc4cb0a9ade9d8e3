-- Ours: starting runs that take work of an earlier one.

-- Notes for a run that is about to be started which of its steps are to be taken from an earlier one. reads_input
-- says of each whether its function reads the run's input beside its own, which has to be the same then; NULL: it
-- is not known, and taken for granted, but for a map over that input.
create or replace function pgflow._plan_reuse(
  function_name text,
  flow_slug text,
  run_id uuid,
  source_run uuid,
  steps text[],
  reads_input boolean[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_source_flow text;
  v_step text;
begin
  -- Before it is looked whether the run is there: see gone_runs.
  perform pgflow._keep_files_of(array[_plan_reuse.source_run]);
  perform pgflow._keep_files_of(array(
    select unnest(u.sources) from pgflow.reuses u where u.run_id = _plan_reuse.source_run
  ));
  v_source_flow := (select r.flow_slug from pgflow.runs r where r.run_id = _plan_reuse.source_run);
  if v_source_flow is null then
    raise exception 'There is no run % in this database', source_run using errcode = 'PF003';
  end if;
  perform pgflow._require_flow(function_name, _plan_reuse.flow_slug);
  perform pgflow._require_flow(function_name, v_source_flow);
  foreach v_step in array steps loop
    if not exists (
      select 1 from pgflow.steps s where s.flow_slug = _plan_reuse.flow_slug and s.step_slug = v_step
    ) then
      raise exception 'Step "%" does not exist in flow "%"', v_step, _plan_reuse.flow_slug using errcode = 'PF008';
    elsif not exists (
      select 1 from pgflow.step_states ss where ss.run_id = _plan_reuse.source_run and ss.step_slug = v_step
    ) then
      raise exception 'Step "%" does not exist in run % of flow "%"', v_step, source_run, v_source_flow using errcode = 'PF008';
    end if;
  end loop;
  if exists (select 1 from pgflow.runs r where r.run_id = _plan_reuse.run_id) then
    raise exception 'There is a run % already', run_id using errcode = 'unique_violation';
  end if;
  insert into pgflow.reuses (run_id, step_slug, source_run, sources, reads_input)
  select distinct on (u.slug) _plan_reuse.run_id, u.slug, _plan_reuse.source_run,
    _plan_reuse.source_run || coalesce(
      (
        select array_agg(distinct e.id)
        from pgflow.reuses earlier
        cross join lateral unnest(earlier.sources) e (id)
        where earlier.run_id = _plan_reuse.source_run
      ),
      '{}'
    ),
    coalesce(
      u.reads,
      s.step_type <> 'map'
        or s.deps_count > 0
        or exists (select 1 from pgflow.loads l where l.run_id = _plan_reuse.run_id)
    )
  from unnest(steps, reads_input) u (slug, reads)
  join pgflow.steps s on s.flow_slug = _plan_reuse.flow_slug and s.step_slug = u.slug
  order by u.slug;
end;
$$;

-- What start_run does, for a run that takes these steps from an earlier one where their input is the same.
create or replace function pgflow.start_run_from(
  flow_slug text,
  input jsonb,
  source_run uuid,
  steps text[],
  reads_input boolean[] default null,
  run_id uuid default null,
  priority int default 0
)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run_id uuid := coalesce(start_run_from.run_id, gen_random_uuid());
begin
  perform pgflow._plan_reuse(
    'start_run_from', start_run_from.flow_slug, v_run_id, start_run_from.source_run, steps, reads_input
  );
  perform pgflow.start_flow(start_run_from.flow_slug, start_run_from.input, v_run_id);
  if start_run_from.priority <> 0 then
    insert into pgflow.run_priorities (run_id, priority) values (v_run_id, start_run_from.priority);
  end if;
  return v_run_id;
end;
$$;

-- The same of start_loaded_run.
create or replace function pgflow.start_loaded_run_from(
  run_id uuid,
  params jsonb,
  source_run uuid,
  steps text[],
  reads_input boolean[] default null,
  priority int default 0
)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_load record;
begin
  select * into v_load from pgflow._lock_load('start_loaded_run_from', start_loaded_run_from.run_id);
  perform pgflow._plan_reuse(
    'start_loaded_run_from', v_load.flow_slug, start_loaded_run_from.run_id, start_loaded_run_from.source_run, steps,
    reads_input
  );
  return pgflow.start_loaded_run(
    start_loaded_run_from.run_id, start_loaded_run_from.params, start_loaded_run_from.priority
  );
end;
$$;

-- What a run takes from an earlier one: of each step how many items, of how many, and their indexes; NULL while it has
-- not been looked for. source_run may be gone.
create or replace function pgflow.run_reuses(run_id uuid)
returns table (step_slug text, source_run uuid, taken int, items int, indexes int4multirange, taken_at timestamptz)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select u.step_slug, u.source_run, u.taken, u.items, u.indexes, u.taken_at
  from pgflow.reuses u
  join pgflow.runs r on r.run_id = u.run_id
  left join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = u.step_slug
  where u.run_id = run_reuses.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_reuses'))::text[]), true)
  order by s.step_index;
$$;
