-- Taskless steps, the end of a run, and what follows when steps are resolved
-- (contract sections 6.5 and 6.7).

-- Completes the steps of a run that have no items, and what follows from that; how many (contract section 6.5).
create or replace function pgflow.cascade_complete_taskless_steps(run_id uuid)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
  v_wave text[];
  v_total int := 0;
  v_turns int := 0;
  v_step record;
begin
  select r.* into v_run
  from pgflow.runs r
  where r.run_id = cascade_complete_taskless_steps.run_id
  for update;

  loop
    v_turns := v_turns + 1;
    if v_turns > 50 then
      raise exception 'Cascade loop exceeded safety limit of 50 iterations';
    end if;

    -- A step with an unmet condition is left to cascade_resolve_conditions.
    select array_agg(ready.step_slug order by ready.step_index) into v_wave
    from (
      select ss.step_slug, s.step_index
      from pgflow.step_states ss
      join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
      where ss.run_id = cascade_complete_taskless_steps.run_id
        and ss.status = 'created'
        and ss.remaining_deps = 0
        and ss.initial_tasks = 0
        and pgflow._condition_met(s, ss.run_id, v_run.input)
      order by ss.step_slug collate "C"
      for update of ss
    ) ready;
    exit when v_wave is null;

    update pgflow.step_states ss
    set status = 'completed',
        started_at = greatest(now(), ss.created_at),
        completed_at = greatest(now(), ss.created_at),
        remaining_tasks = 0,
        output = case when s.step_type = 'map' then '[]'::jsonb end
    from pgflow.steps s
    where ss.run_id = cascade_complete_taskless_steps.run_id
      and ss.step_slug = any (v_wave)
      and s.flow_slug = ss.flow_slug
      and s.step_slug = ss.step_slug;

    for v_step in
      select ss.step_slug, ss.started_at, ss.completed_at, ss.output
      from pgflow.step_states ss
      join unnest(v_wave) with ordinality w (slug, n) on w.slug = ss.step_slug
      where ss.run_id = cascade_complete_taskless_steps.run_id
      order by w.n
    loop
      perform pgflow._emit_step_event(
        cascade_complete_taskless_steps.run_id,
        v_step.step_slug,
        'completed',
        jsonb_build_object(
          'started_at', v_step.started_at,
          'completed_at', v_step.completed_at,
          'remaining_tasks', 0,
          'remaining_deps', 0,
          'output', v_step.output
        )
      );
    end loop;

    perform 1
    from pgflow.step_states ss
    where ss.run_id = cascade_complete_taskless_steps.run_id
      and exists (
        select 1 from pgflow.deps d
        where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug and d.dep_slug = any (v_wave)
      )
    order by ss.step_slug collate "C"
    for update;

    update pgflow.step_states ss
    set remaining_deps = ss.remaining_deps - done.parents,
        initial_tasks = case when s.step_type = 'map' then 0 else ss.initial_tasks end
    from (
      select d.flow_slug, d.step_slug, count(*)::int as parents
      from pgflow.deps d
      where d.flow_slug = v_run.flow_slug and d.dep_slug = any (v_wave)
      group by d.flow_slug, d.step_slug
    ) done
    join pgflow.steps s on s.flow_slug = done.flow_slug and s.step_slug = done.step_slug
    where ss.run_id = cascade_complete_taskless_steps.run_id
      and ss.step_slug = done.step_slug;

    update pgflow.runs r
    set remaining_steps = r.remaining_steps - cardinality(v_wave)
    where r.run_id = cascade_complete_taskless_steps.run_id;

    v_total := v_total + cardinality(v_wave);
  end loop;
  return v_total;
end;
$$;

-- The bytes up to which the outputs of a map in ranges are also written into its run's output, or its step's where a
-- step depends on it: they are in its pages, once, for whoever reads them; the copy would double what a large run
-- leaves behind. get_run_with_states tells them as far as it tells anything so large.
create or replace function pgflow._largest_leaf()
returns bigint
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 1048576::bigint $$;

-- Whether nothing in this run depends on the step: steps that came to the flow later are not in it.
create or replace function pgflow._is_leaf(flow_slug text, run_id uuid, step_slug text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (
    select 1
    from pgflow.deps d
    join pgflow.step_states child on child.run_id = _is_leaf.run_id and child.step_slug = d.step_slug
    where d.flow_slug = _is_leaf.flow_slug and d.dep_slug = _is_leaf.step_slug
  );
$$;

-- What a run is completed with: the outputs of its completed leaf steps by slug. Together they may pass the
-- limit of jsonb; then the largest maps are null, which no map returns: the run's output names the step, whose
-- tasks or pages hold its outputs. Steps of one task come before maps, small outputs before large ones.
create or replace function pgflow._run_output(run_id uuid)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_slugs text[];
  v_fitting text[];
  v_output jsonb;
begin
  select array_agg(l.step_slug), array_agg(l.step_slug) filter (where l.size <= pgflow._largest_json())
  into v_slugs, v_fitting
  from (
    select ss.step_slug,
      sum(o.size + octet_length(ss.step_slug) + 16) over (
        order by s.step_type = 'map', o.size, ss.step_slug collate "C"
      ) as size
    from pgflow.step_states ss
    cross join lateral pgflow._result_bytes(ss.run_id, ss.step_slug) r (bytes)
    cross join lateral (
      select coalesce(
        pg_column_size(ss.output),
        case
          when r.bytes > pgflow._largest_leaf() then 1 + pgflow._largest_json()
          when r.bytes > 0 then r.bytes
        end,
        8
      ) as size
    ) o
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where ss.run_id = _run_output.run_id
      and ss.status = 'completed'
      and pgflow._is_leaf(ss.flow_slug, ss.run_id, ss.step_slug)
  ) l;
  begin
    v_output := (
      select pgflow._object_of(
        array_agg(ss.step_slug),
        array_agg(
          case
            when ss.step_slug = any (v_fitting)
              then coalesce(ss.output, pgflow._leaf_array(ss.run_id, ss.step_slug), 'null'::jsonb)
            else 'null'::jsonb
          end
        )
      )
      from pgflow.step_states ss
      where ss.run_id = _run_output.run_id and ss.step_slug = any (v_slugs)
    );
  exception
    when program_limit_exceeded or out_of_memory then
      v_output := (select jsonb_object_agg(l.slug, null) from unnest(v_slugs) l (slug));
  end;
  return v_output;
end;
$$;

-- Completes a run that has no steps left, with the outputs of its leaves (contract section 6.7).
create or replace function pgflow.maybe_complete_run(run_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
begin
  update pgflow.runs r
  set status = 'completed',
      completed_at = greatest(now(), r.started_at),
      output = pgflow._run_output(r.run_id)
  where r.run_id = maybe_complete_run.run_id
    and r.remaining_steps = 0
    and r.status = 'started'
  returning r.* into v_run;

  if found then
    perform pgflow._emit_run_event(
      v_run.run_id,
      'completed',
      jsonb_build_object('flow_slug', v_run.flow_slug, 'completed_at', v_run.completed_at),
      'output',
      v_run.output
    );
  end if;
end;
$$;

-- What follows when steps of a run were resolved: conditions, empty maps and what is taken from an earlier run,
-- until nothing changes, then the steps that are ready, then the end of the run. False = the run has failed.
create or replace function pgflow._advance_run(run_id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  loop
    if not pgflow.cascade_resolve_conditions(run_id) then
      return false;
    end if;
    continue when pgflow.cascade_complete_taskless_steps(run_id) > 0;
    exit when pgflow._reuse_steps(run_id) = 0;
  end loop;
  perform pgflow.start_ready_steps(run_id);
  perform pgflow.maybe_complete_run(run_id);
  return true;
end;
$$;
