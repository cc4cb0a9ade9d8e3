-- add_step (contract section 4.2).

create or replace function pgflow._check_dependencies(step_slug text, step_type text, deps_slugs text[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if step_type = 'map' and cardinality(deps_slugs) > 1 then
    raise exception 'Map step "%" can have at most one dependency, but % were provided: %',
      step_slug, cardinality(deps_slugs), array_to_string(deps_slugs, ', ');
  end if;
end;
$$;

-- Adds a step to a flow, behind the steps that it depends on; one that is there stays as it is, and is answered
-- (contract section 4.2).
create or replace function pgflow.add_step(
  flow_slug text,
  step_slug text,
  deps_slugs text[] default '{}',
  max_attempts int default null,
  base_delay int default null,
  timeout int default null,
  start_delay int default null,
  step_type text default 'single',
  required_input_pattern jsonb default null,
  forbidden_input_pattern jsonb default null,
  when_unmet text default 'skip',
  when_exhausted text default 'fail'
)
returns pgflow.steps
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step pgflow.steps;
  -- A name given twice is one dependency.
  v_deps text[] := array(
    select d.slug
    from unnest(add_step.deps_slugs) with ordinality d (slug, n)
    group by d.slug
    order by min(d.n)
  );
  v_type text := coalesce(add_step.step_type, 'single');
begin
  perform pgflow._lock_definition(add_step.flow_slug);

  perform pgflow._check_dependencies(add_step.step_slug, v_type, v_deps);
  if exists (
    select 1 from pgflow.flows f where f.flow_slug = add_step.flow_slug and f.queue_mode = 'step'
  ) then
    raise exception 'Flow "%" uses per-step queues: steps cannot be added incrementally.', add_step.flow_slug
      using detail = 'A step-mode definition is provisioned only by complete compilation.',
            hint = 'Recompile the complete flow definition with every step instead.';
  end if;

  insert into pgflow.steps (
    flow_slug, step_slug, step_type, step_index, deps_count,
    opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay,
    required_input_pattern, forbidden_input_pattern, when_unmet, when_exhausted, queue_name
  )
  select
    add_step.flow_slug, add_step.step_slug, v_type,
    (select coalesce(max(s.step_index) + 1, 0) from pgflow.steps s where s.flow_slug = add_step.flow_slug),
    cardinality(v_deps),
    add_step.max_attempts, add_step.base_delay, add_step.timeout, add_step.start_delay,
    add_step.required_input_pattern, add_step.forbidden_input_pattern,
    coalesce(add_step.when_unmet, 'skip'), coalesce(add_step.when_exhausted, 'fail'),
    lower(add_step.flow_slug)
  on conflict on constraint steps_pkey do nothing
  returning * into v_step;

  if v_step.step_slug is null then
    -- Already there: nothing changes, edges included, so that deps_count stays true.
    select s.* into v_step
    from pgflow.steps s
    where s.flow_slug = add_step.flow_slug and s.step_slug = add_step.step_slug;
    return v_step;
  end if;

  insert into pgflow.deps (flow_slug, dep_slug, step_slug)
  select add_step.flow_slug, d.slug, add_step.step_slug
  from unnest(v_deps) with ordinality d (slug, n)
  order by d.n;

  return v_step;
end;
$$;
