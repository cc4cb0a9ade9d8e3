-- Ours: limits of flows and steps, set, removed, listed.

-- Refuses a flow that is not there, and a step that it does not have; NULL: the flow as a whole.
create or replace function pgflow._require_stored_step(flow_slug text, step_slug text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow._require_stored_flow(_require_stored_step.flow_slug);
  if _require_stored_step.step_slug is not null and not exists (
    select 1 from pgflow.steps s
    where s.flow_slug = _require_stored_step.flow_slug and s.step_slug = _require_stored_step.step_slug
  ) then
    raise exception 'Step "%" does not exist in flow "%"', _require_stored_step.step_slug,
      _require_stored_step.flow_slug
      using errcode = 'PF016';
  end if;
end;
$$;

-- Refuses what is no limit of a flow, or of a step of it.
create or replace function pgflow._require_limit(flow_slug text, step_slug text, rate float8, burst int)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow._require_stored_step(_require_limit.flow_slug, _require_limit.step_slug);
  if burst is not null and rate is null then
    raise exception 'A burst is how many of a rate may begin at one moment, and there is no rate'
      using errcode = 'invalid_parameter_value', hint = 'Give a rate, too, or leave the burst out.';
  end if;
end;
$$;

-- Makes the row of a limit, and locks it: whoever claims holds that lock.
create or replace function pgflow._lock_limit(flow_slug text, step_slug text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.limits (flow_slug, step_slug) values (flow_slug, coalesce(step_slug, ''))
  on conflict on constraint limits_pkey do nothing;
  select 1 from pgflow.limits l
  where l.flow_slug = _lock_limit.flow_slug and l.step_slug = coalesce(_lock_limit.step_slug, '')
  for update;
$$;

-- Forgets limits of a flow that limit nothing, and what was noted for them.
create or replace function pgflow._tidy_limits(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  delete from pgflow.limits l
  where l.flow_slug = _tidy_limits.flow_slug
    and not l.is_set
    and num_nonnulls(l.at_once, l.rate) = 0;
  if not exists (
    select 1 from pgflow.limits l where l.flow_slug = _tidy_limits.flow_slug and l.at_once is not null
  ) then
    delete from pgflow.handed_out h where h.flow_slug = _tidy_limits.flow_slug;
  end if;
  perform pg_notify('pgflow_work', _tidy_limits.flow_slug);
end;
$$;

-- Sets the limits of a flow, or of a step of it, to these and no others, over what its code says: at most at_once items
-- in the hands of workers, at most rate a second, burst of them at one moment; NULL is no limit. It holds from the
-- next claim on; what is held beyond it already is run to its end.
create or replace function pgflow.set_limit(
  flow_slug text,
  step_slug text default null,
  at_once int default null,
  rate float8 default null,
  burst int default null
)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_flow('set_limit', set_limit.flow_slug);
  perform pgflow._require_limit(set_limit.flow_slug, set_limit.step_slug, set_limit.rate, set_limit.burst);
  perform pgflow._lock_limit(set_limit.flow_slug, set_limit.step_slug);
  update pgflow.limits l
  set at_once = set_limit.at_once,
      rate = set_limit.rate,
      burst = set_limit.burst,
      is_set = true,
      changed_at = clock_timestamp()
  where l.flow_slug = set_limit.flow_slug and l.step_slug = coalesce(set_limit.step_slug, '');
  perform pgflow._tidy_limits(set_limit.flow_slug);
end;
$$;

-- Goes back to what the code of the flow says; whether something else was set.
create or replace function pgflow.reset_limit(flow_slug text, step_slug text default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_flow('reset_limit', reset_limit.flow_slug);
  perform pgflow._require_stored_step(reset_limit.flow_slug, reset_limit.step_slug);
  update pgflow.limits l
  set at_once = l.coded_at_once,
      rate = l.coded_rate,
      burst = l.coded_burst,
      is_set = false,
      changed_at = clock_timestamp()
  where l.flow_slug = reset_limit.flow_slug and l.step_slug = coalesce(reset_limit.step_slug, '') and l.is_set;
  if not found then
    return false;
  end if;
  perform pgflow._tidy_limits(reset_limit.flow_slug);
  return true;
end;
$$;

-- What the code of a flow says of it, or of a step of it; all three NULL: nothing. Where somebody has set another, that
-- one holds.
create or replace function pgflow.define_limit(
  flow_slug text,
  step_slug text default null,
  at_once int default null,
  rate float8 default null,
  burst int default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_limit(define_limit.flow_slug, define_limit.step_slug, define_limit.rate, define_limit.burst);
  if exists (
    select 1 from pgflow.limits l
    where l.flow_slug = define_limit.flow_slug
      and l.step_slug = coalesce(define_limit.step_slug, '')
      and (l.coded_at_once, l.coded_rate, l.coded_burst)
        is not distinct from (define_limit.at_once, define_limit.rate, define_limit.burst)
  ) or (num_nonnulls(define_limit.at_once, define_limit.rate) = 0 and not exists (
    select 1 from pgflow.limits l
    where l.flow_slug = define_limit.flow_slug and l.step_slug = coalesce(define_limit.step_slug, '')
  )) then
    return;
  end if;
  perform pgflow._lock_limit(define_limit.flow_slug, define_limit.step_slug);
  update pgflow.limits l
  set coded_at_once = define_limit.at_once,
      coded_rate = define_limit.rate,
      coded_burst = define_limit.burst,
      at_once = case when l.is_set then l.at_once else define_limit.at_once end,
      rate = case when l.is_set then l.rate else define_limit.rate end,
      burst = case when l.is_set then l.burst else define_limit.burst end,
      changed_at = clock_timestamp()
  where l.flow_slug = define_limit.flow_slug and l.step_slug = coalesce(define_limit.step_slug, '');
  perform pgflow._tidy_limits(define_limit.flow_slug);
end;
$$;

-- What a shape, or a step of one, says of its limit.
create or replace function pgflow._limit_in(p_shape jsonb, out at_once int, out rate float8, out burst int)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select (o.options ->> 'limit')::int, (o.options ->> 'rate')::float8, (o.options ->> 'burst')::int
  from pgflow._set_options(p_shape) o (options);
$$;

-- Makes the limits of a flow and its steps those of its shape, as far as nobody has set others.
create or replace function pgflow._define_limits_from_shape(p_flow_slug text, p_shape jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.define_limit(p_flow_slug, s.step_slug, l.at_once, l.rate, l.burst)
  from (
    select null::text as step_slug, p_shape as shape
    union all
    select e.value ->> 'slug', e.value
    from jsonb_array_elements(coalesce(p_shape -> 'steps', '[]'::jsonb)) e
  ) s
  cross join lateral pgflow._limit_in(s.shape) l;
$$;

-- The limits of flows that the caller may use, of steps in definition order; step_slug is null of the flow as a whole.
-- held: items in the hands of workers now, where they are counted.
create or replace function pgflow.list_limits(flow_slug text default null)
returns table (
  flow_slug text,
  step_slug text,
  at_once int,
  rate float8,
  burst int,
  is_set boolean,
  coded_at_once int,
  coded_rate float8,
  coded_burst int,
  held bigint
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select l.flow_slug, nullif(l.step_slug, ''), l.at_once, l.rate, pgflow._burst(l.rate, l.burst), l.is_set,
    l.coded_at_once, l.coded_rate, l.coded_burst,
    case
      when l.at_once is not null then (
        select coalesce(sum(pgflow._still_held(h)), 0)
        from pgflow.handed_out h
        where h.flow_slug = l.flow_slug and l.step_slug in ('', h.step_slug)
      )
    end
  from pgflow.limits l
  left join pgflow.steps s on s.flow_slug = l.flow_slug and s.step_slug = l.step_slug
  where (list_limits.flow_slug is null or l.flow_slug = list_limits.flow_slug)
    and coalesce(l.flow_slug = any ((select pgflow._granted_flows('list_limits'))::text[]), true)
  order by l.flow_slug collate "C", s.step_index nulls first;
$$;
