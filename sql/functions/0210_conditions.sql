-- Conditions and skips (contract section 10).

-- Whether a step's conditions are met by the run's input, for a step without dependencies, else by the object
-- of the outputs of its completed parents. NULL if that cannot be told: see _deps_contain.
create or replace function pgflow._condition_met(step pgflow.steps, run_id uuid, run_input jsonb)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_input jsonb;
begin
  if step.required_input_pattern is null and step.forbidden_input_pattern is null then
    return true;
  end if;
  if step.deps_count = 0 then
    v_input := run_input;
  else
    v_input := pgflow._deps_outputs(step.flow_slug, run_id, step.step_slug);
    if v_input is null then
      return (
        step.required_input_pattern is null
        or pgflow._deps_contain(step.flow_slug, run_id, step.step_slug, step.required_input_pattern)
      ) and (
        step.forbidden_input_pattern is null
        or not pgflow._deps_contain(step.flow_slug, run_id, step.step_slug, step.forbidden_input_pattern)
      );
    end if;
  end if;
  return (step.required_input_pattern is null or v_input @> step.required_input_pattern)
    and (step.forbidden_input_pattern is null or not v_input @> step.forbidden_input_pattern);
end;
$$;

-- The parents in skipped_slugs were skipped in this turn: their dependents lose that many
-- dependencies, and a map over a skipped parent has nothing to map over.
create or replace function pgflow._release_dependents_of_skipped(run_id uuid, skipped_slugs text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  -- Dependents are locked in slug order before any is written.
  perform 1
  from pgflow.step_states ss
  where ss.run_id = _release_dependents_of_skipped.run_id
    and exists (
      select 1 from pgflow.deps d
      where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug and d.dep_slug = any (skipped_slugs)
    )
  order by ss.step_slug collate "C"
  for update;

  update pgflow.step_states ss
  set remaining_deps = ss.remaining_deps - gone.parents,
      initial_tasks = case
        when s.step_type = 'map' and s.deps_count = 1 then 0
        else ss.initial_tasks
      end
  from (
    select d.flow_slug, d.step_slug, count(*)::int as parents
    from pgflow.deps d
    join pgflow.runs r on r.flow_slug = d.flow_slug
    where r.run_id = _release_dependents_of_skipped.run_id and d.dep_slug = any (skipped_slugs)
    group by d.flow_slug, d.step_slug
  ) gone
  join pgflow.steps s on s.flow_slug = gone.flow_slug and s.step_slug = gone.step_slug
  where ss.run_id = _release_dependents_of_skipped.run_id
    and ss.step_slug = gone.step_slug
    and ss.status in ('created', 'skipped');
end;
$$;

create or replace function pgflow._cascade_force_skip_steps(run_id uuid, step_slug text, skip_reason text)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
  v_slugs text[];
  v_step record;
begin
  select r.flow_slug into v_flow_slug
  from pgflow.runs r
  where r.run_id = _cascade_force_skip_steps.run_id
  for update;
  if not found then
    raise exception 'Run not found: %', _cascade_force_skip_steps.run_id;
  end if;

  -- "union" drops duplicates while it recurses, so wide diamonds stay linear.
  with recursive downstream (slug) as (
    select _cascade_force_skip_steps.step_slug
    union
    select d.step_slug
    from pgflow.deps d
    join downstream w on d.dep_slug = w.slug
    where d.flow_slug = v_flow_slug
  ), locked as (
    select ss.step_slug
    from pgflow.step_states ss
    where ss.run_id = _cascade_force_skip_steps.run_id
      and ss.step_slug in (select slug from downstream)
      and ss.status in ('created', 'started')
    order by ss.step_slug collate "C"
    for update
  )
  select array_agg(l.step_slug) into v_slugs from locked l;

  if v_slugs is null then
    return 0;
  end if;

  update pgflow.step_states ss
  set status = 'skipped',
      skip_reason = case
        when ss.step_slug = _cascade_force_skip_steps.step_slug then _cascade_force_skip_steps.skip_reason
        else 'dependency_skipped'
      end,
      skipped_at = greatest(now(), ss.created_at),
      remaining_tasks = null
  where ss.run_id = _cascade_force_skip_steps.run_id and ss.step_slug = any (v_slugs);

  for v_step in
    select ss.step_slug, ss.skip_reason, ss.skipped_at
    from pgflow.step_states ss
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where ss.run_id = _cascade_force_skip_steps.run_id and ss.step_slug = any (v_slugs)
    order by s.step_index
  loop
    perform pgflow._emit_step_event(
      _cascade_force_skip_steps.run_id,
      v_step.step_slug,
      'skipped',
      jsonb_build_object(
        'flow_slug', v_flow_slug,
        'skip_reason', v_step.skip_reason,
        'skipped_at', v_step.skipped_at
      )
    );
  end loop;

  update pgflow.runs r
  set remaining_steps = r.remaining_steps - cardinality(v_slugs)
  where r.run_id = _cascade_force_skip_steps.run_id;

  perform pgflow._end_open_tasks(_cascade_force_skip_steps.run_id, 'skipped', v_slugs);
  return cardinality(v_slugs);
end;
$$;

-- Fails the step and its run, and cancels what was left of it. Caller holds the run's lock.
create or replace function pgflow._fail_step_and_run(
  flow_slug text,
  run_id uuid,
  step_slug text,
  error_message text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step_failed_at timestamptz;
  v_run_failed_at timestamptz;
begin
  update pgflow.step_states ss
  set status = 'failed',
      failed_at = greatest(now(), ss.started_at),
      error_message = _fail_step_and_run.error_message
  where ss.run_id = _fail_step_and_run.run_id and ss.step_slug = _fail_step_and_run.step_slug
  returning ss.failed_at into v_step_failed_at;

  update pgflow.runs r
  set status = 'failed', failed_at = greatest(now(), r.started_at)
  where r.run_id = _fail_step_and_run.run_id
  returning r.failed_at into v_run_failed_at;

  perform pgflow._emit_step_event(
    _fail_step_and_run.run_id,
    _fail_step_and_run.step_slug,
    'failed',
    jsonb_build_object('error_message', _fail_step_and_run.error_message, 'failed_at', v_step_failed_at)
  );
  perform pgflow._emit_run_event(
    _fail_step_and_run.run_id,
    'failed',
    jsonb_build_object(
      'flow_slug', _fail_step_and_run.flow_slug,
      'error_message', _fail_step_and_run.error_message,
      'failed_at', v_run_failed_at
    )
  );
  perform pgflow._end_open_tasks(_fail_step_and_run.run_id, 'cancelled');
end;
$$;

-- Skips the steps of a run whose conditions are not met, and what follows from that; false where that
-- failed the run (contract section 6.6).
create or replace function pgflow.cascade_resolve_conditions(run_id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
  v_failing text;
  v_why text;
  v_skipped text[];
  v_skipped_at timestamptz;
  v_step record;
  v_turns int := 0;
begin
  select r.* into v_run
  from pgflow.runs r
  where r.run_id = cascade_resolve_conditions.run_id
  for update;
  if v_run.status is distinct from 'started' then
    return v_run.status is distinct from 'failed';
  end if;

  -- Most flows have no conditions at all.
  if not exists (
    select 1 from pgflow.steps s
    where s.flow_slug = v_run.flow_slug
      and (s.required_input_pattern is not null or s.forbidden_input_pattern is not null)
  ) then
    return true;
  end if;

  loop
    v_turns := v_turns + 1;
    if v_turns > 50 then
      raise exception 'cascade_resolve_conditions exceeded safety limit of 50 iterations';
    end if;

    select u.step_slug, u.when_unmet into v_failing, v_why
    from pgflow._unmet_steps(cascade_resolve_conditions.run_id, v_run.flow_slug, v_run.input) u
    where u.when_unmet in ('fail', 'unknown')
    order by u.step_index
    limit 1;
    if found then
      perform pgflow._fail_step_and_run(
        v_run.flow_slug,
        cascade_resolve_conditions.run_id,
        v_failing,
        case
          when v_why = 'fail' then 'Condition not met'
          else 'Condition cannot be tested: ' || pgflow._missing_input(
            v_run.flow_slug, cascade_resolve_conditions.run_id, v_failing
          )
        end
      );
      return false;
    end if;

    v_skipped := null;
    for v_step in
      select u.step_slug, u.step_index
      from pgflow._unmet_steps(cascade_resolve_conditions.run_id, v_run.flow_slug, v_run.input) u
      where u.when_unmet = 'skip'
      order by u.step_index
    loop
      v_skipped := v_skipped || v_step.step_slug;
      update pgflow.step_states ss
      set status = 'skipped',
          skip_reason = 'condition_unmet',
          skipped_at = greatest(now(), ss.created_at)
      where ss.run_id = cascade_resolve_conditions.run_id and ss.step_slug = v_step.step_slug
      returning ss.skipped_at into v_skipped_at;
      perform pgflow._emit_step_event(
        cascade_resolve_conditions.run_id,
        v_step.step_slug,
        'skipped',
        jsonb_build_object(
          'flow_slug', v_run.flow_slug,
          'skip_reason', 'condition_unmet',
          'skipped_at', v_skipped_at
        )
      );
    end loop;
    if v_skipped is not null then
      perform pgflow._release_dependents_of_skipped(cascade_resolve_conditions.run_id, v_skipped);
      update pgflow.runs r
      set remaining_steps = r.remaining_steps - cardinality(v_skipped)
      where r.run_id = cascade_resolve_conditions.run_id;
    end if;

    for v_step in
      select u.step_slug
      from pgflow._unmet_steps(cascade_resolve_conditions.run_id, v_run.flow_slug, v_run.input) u
      where u.when_unmet = 'skip-cascade'
      order by u.step_index
    loop
      perform pgflow._cascade_force_skip_steps(
        cascade_resolve_conditions.run_id, v_step.step_slug, 'condition_unmet'
      );
    end loop;

    exit when v_skipped is null;
  end loop;
  return true;
end;
$$;
