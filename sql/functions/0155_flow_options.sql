-- Ours: options, which are no part of the shape that ensure_flow_compiled compares (contract section 4.3).

-- The options that a shape, or a step of it, sets.
create or replace function pgflow._set_options(p_shape jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when jsonb_typeof(p_shape -> 'options') = 'object' then jsonb_strip_nulls(p_shape -> 'options')
    else '{}'
  end;
$$;

create or replace function pgflow._tolerance_text(failures int, share numeric)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select nullif(concat_ws(' or ', failures::text, trim_scale(share * 100) || ' %'), '');
$$;

-- What the code has said of the limit of a flow, or of a step of it, by the keys of the shape.
create or replace function pgflow._coded_limit(p_flow_slug text, p_step_slug text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('limit', l.coded_at_once, 'rate', l.coded_rate, 'burst', l.coded_burst)
  from pgflow.limits l
  where l.flow_slug = p_flow_slug and l.step_slug = coalesce(p_step_slug, '');
$$;

-- Labels as people read them, in order.
create or replace function pgflow._labels_text(labels jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(distinct e.label, ', ' order by e.label)
  from jsonb_array_elements_text(case when jsonb_typeof(labels) = 'array' then labels end) e (label);
$$;

-- What each option is and should be, as people read it; null is not set. A step whose slug is null stands
-- for the flow, whose defaults are those of create_flow. A storage that the code does not ask for stays.
create or replace function pgflow._compare_flow_options(p_flow_slug text, p_shape jsonb)
returns table (step_slug text, option text, was text, wanted text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.step_slug, v.option, v.was, v.wanted
  from (
    select null::text as step_slug, -1 as step_index, f.opt_max_attempts as attempts, f.opt_base_delay as delay,
      f.opt_timeout as timeout, null::int as start, null::text as tolerate, null::int as alike,
      null::text as storage, null::int as batch, null::text as barrier, false as is_map,
      pgflow._coded_limit(f.flow_slug, null) as coded, null::jsonb as requires,
      '{"maxAttempts": 3, "baseDelay": 5, "timeout": 60}' || pgflow._set_options(p_shape) as options
    from pgflow.flows f
    where f.flow_slug = p_flow_slug
    union all
    select s.step_slug, s.step_index, s.opt_max_attempts, s.opt_base_delay,
      s.opt_timeout, s.opt_start_delay, pgflow._tolerance_text(p.tolerated_failures, p.tolerated_share),
      p.stop_after_alike, case when s.step_type = 'map' then coalesce(p.storage, 'tasks') end, p.batch,
      case when s.step_type = 'map' then coalesce(p.barrier, true)::text end, s.step_type = 'map',
      pgflow._coded_limit(s.flow_slug, s.step_slug),
      (
        select to_jsonb(q.labels) from pgflow.step_requirements q
        where q.flow_slug = s.flow_slug and q.step_slug = s.step_slug
      ),
      pgflow._set_options(e.value)
    from pgflow.steps s
    join jsonb_array_elements(p_shape -> 'steps') e on e.value ->> 'slug' = s.step_slug
    left join pgflow.step_policies p on p.flow_slug = s.flow_slug and p.step_slug = s.step_slug
    where s.flow_slug = p_flow_slug
  ) c
  cross join lateral (
    values
      (1, 'max_attempts', c.attempts::text, c.options ->> 'maxAttempts'),
      (2, 'base_delay', c.delay || ' s', (c.options ->> 'baseDelay') || ' s'),
      (3, 'timeout', c.timeout || ' s', (c.options ->> 'timeout') || ' s'),
      (4, 'start_delay', c.start || ' s', (c.options ->> 'startDelay') || ' s'),
      (5, 'tolerate', c.tolerate, pgflow._tolerance_text(
        (c.options ->> 'toleratedFailures')::int, (c.options ->> 'toleratedShare')::numeric
      )),
      (6, 'stop_after_alike', c.alike::text, c.options ->> 'stopAfterAlike'),
      (7, 'storage', c.storage, coalesce(c.options ->> 'storage', c.storage)),
      (8, 'batch', c.batch::text, c.options ->> 'batch'),
      (9, 'barrier', c.barrier, coalesce(c.options ->> 'barrier', case when c.is_map then 'true' end)),
      (10, 'limit', c.coded ->> 'limit', c.options ->> 'limit'),
      (11, 'rate', (c.coded ->> 'rate')::float8 || '/s', (c.options ->> 'rate')::float8 || '/s'),
      (12, 'burst', c.coded ->> 'burst', c.options ->> 'burst'),
      (13, 'requires', pgflow._labels_text(c.requires), pgflow._labels_text(c.options -> 'requires'))
  ) v (place, option, was, wanted)
  order by c.step_index, v.place;
$$;

-- Makes the stored options those of the code, and answers what changed, one sentence a change. Does nothing
-- for a flow that is not there or has another shape. What is claimed from now on goes by them, in runs under
-- way, too.
create or replace function pgflow.apply_flow_options(flow_slug text, shape jsonb)
returns text[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_changes text[];
begin
  perform pgflow._lock_definition(apply_flow_options.flow_slug);

  if cardinality(
    pgflow._compare_flow_shapes(shape, pgflow._get_flow_shape(apply_flow_options.flow_slug))
  ) > 0 then
    return '{}';
  end if;

  v_changes := array(
    select format(
      '%s%s is now %s, was %s',
      c.option, ' of step "' || c.step_slug || '"', coalesce(c.wanted, u.unset), coalesce(c.was, u.unset)
    )
    from pgflow._compare_flow_options(apply_flow_options.flow_slug, shape) c
    cross join lateral (
      select case
        when c.option in ('max_attempts', 'base_delay', 'timeout') then 'the flow''s' else 'not set'
      end as unset
    ) u
    where c.was is distinct from c.wanted
  );
  if cardinality(v_changes) = 0 then
    return v_changes;
  end if;

  update pgflow.flows f
  set opt_max_attempts = coalesce((o.options ->> 'maxAttempts')::int, 3),
      opt_base_delay = coalesce((o.options ->> 'baseDelay')::int, 5),
      opt_timeout = coalesce((o.options ->> 'timeout')::int, 60)
  from pgflow._set_options(shape) o (options)
  where f.flow_slug = apply_flow_options.flow_slug;

  update pgflow.steps s
  set opt_max_attempts = (o.options ->> 'maxAttempts')::int,
      opt_base_delay = (o.options ->> 'baseDelay')::int,
      opt_timeout = (o.options ->> 'timeout')::int,
      opt_start_delay = (o.options ->> 'startDelay')::int
  from jsonb_array_elements(shape -> 'steps') e
  cross join lateral pgflow._set_options(e.value) o (options)
  where s.flow_slug = apply_flow_options.flow_slug and s.step_slug = e.value ->> 'slug';

  delete from pgflow.step_policies p
  where p.flow_slug = apply_flow_options.flow_slug and p.storage is null;
  perform pgflow.set_step_policy(p.flow_slug, p.step_slug)
  from pgflow.step_policies p
  where p.flow_slug = apply_flow_options.flow_slug;
  perform pgflow._set_policies_from_shape(apply_flow_options.flow_slug, shape, false);
  perform pgflow._define_limits_from_shape(apply_flow_options.flow_slug, shape);
  perform pgflow._set_requirements_from_shape(apply_flow_options.flow_slug, shape);
  return v_changes;
end;
$$;

-- What decides over a failed task of each step: its own options, else its flow's.
create or replace function pgflow.flow_options(flow_slug text)
returns table (step_slug text, max_attempts int, base_delay int)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.step_slug, coalesce(s.opt_max_attempts, f.opt_max_attempts), coalesce(s.opt_base_delay, f.opt_base_delay)
  from pgflow.flows f
  join pgflow.steps s on s.flow_slug = f.flow_slug
  where f.flow_slug = flow_options.flow_slug
    and coalesce(f.flow_slug = any ((select pgflow._granted_flows('flow_options'))::text[]), true)
  order by s.step_index;
$$;
