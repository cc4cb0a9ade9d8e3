-- Flows from shapes (contract 0.17 sections 4.5 and 4.6).

-- A flow whose steps have a queue each; its steps are there all at once or not at all.
create or replace function pgflow._create_step_queued_flow(p_flow_slug text, p_shape jsonb, p_routes jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_options jsonb := p_shape -> 'options';
  v_missing text[] := '{}';
  v_route record;
begin
  -- All of them first: what stands in the way of a later one leaves no queue of an earlier one behind.
  for v_route in
    select e.value ->> 'queueName' as queue_name
    from jsonb_array_elements(p_routes) with ordinality e (value, n)
    order by e.n
  loop
    if pgflow._assert_step_queue_available(p_flow_slug, v_route.queue_name) then
      v_missing := v_missing || v_route.queue_name;
    end if;
  end loop;
  perform pgflow._create_queue(m.queue_name) from unnest(v_missing) m (queue_name);

  insert into pgflow.flows (flow_slug, opt_max_attempts, opt_base_delay, opt_timeout, queue_mode)
  values (
    p_flow_slug,
    coalesce((v_options ->> 'maxAttempts')::int, 3),
    coalesce((v_options ->> 'baseDelay')::int, 5),
    coalesce((v_options ->> 'timeout')::int, 60),
    'step'
  )
  on conflict (flow_slug) do nothing;

  perform pgflow._insert_step(p_flow_slug, e.value, e.n::int - 1, p_routes -> (e.n::int - 1) ->> 'queueName')
  from jsonb_array_elements(p_shape -> 'steps') with ordinality e (value, n)
  order by e.n;
end;
$$;

-- A flow with the routes that were derived for it, while an older one of its slug may still have been there: a
-- slug that was valid once stays so for the flow that replaces its own.
create or replace function pgflow._create_routed_flow(
  p_flow_slug text,
  p_shape jsonb,
  p_queue_mode text,
  p_routes jsonb
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_options jsonb := p_shape -> 'options';
  v_step jsonb;
begin
  if p_queue_mode = 'step' then
    perform pgflow._create_step_queued_flow(p_flow_slug, p_shape, p_routes);
  else
    perform pgflow.create_flow(
      p_flow_slug,
      (v_options ->> 'maxAttempts')::int,
      (v_options ->> 'baseDelay')::int,
      (v_options ->> 'timeout')::int
    );
    for v_step in
      select e.value
      from jsonb_array_elements(coalesce(p_shape -> 'steps', '[]'::jsonb)) with ordinality e (value, n)
      order by e.n
    loop
      v_options := v_step -> 'options';
      perform pgflow.add_step(
        flow_slug => p_flow_slug,
        step_slug => v_step ->> 'slug',
        deps_slugs => array(
          select d.value
          from jsonb_array_elements_text(coalesce(v_step -> 'dependencies', '[]'::jsonb)) with ordinality d (value, n)
          order by d.n
        ),
        max_attempts => (v_options ->> 'maxAttempts')::int,
        base_delay => (v_options ->> 'baseDelay')::int,
        timeout => (v_options ->> 'timeout')::int,
        start_delay => (v_options ->> 'startDelay')::int,
        step_type => v_step ->> 'stepType',
        required_input_pattern => pgflow._pattern_value(v_step -> 'requiredInputPattern'),
        forbidden_input_pattern => pgflow._pattern_value(v_step -> 'forbiddenInputPattern'),
        when_unmet => coalesce(v_step ->> 'whenUnmet', 'skip'),
        when_exhausted => coalesce(v_step ->> 'whenExhausted', 'fail')
      );
    end loop;
  end if;
  perform pgflow._set_policies_from_shape(p_flow_slug, p_shape, true);
  perform pgflow._define_limits_from_shape(p_flow_slug, p_shape);
  perform pgflow._set_requirements_from_shape(p_flow_slug, p_shape);
end;
$$;

create or replace function pgflow._create_flow_from_shape(
  p_flow_slug text,
  p_shape jsonb,
  p_queue_mode text default 'flow'
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_mode text := coalesce(p_queue_mode, 'flow');
begin
  perform pgflow._lock_definition(p_flow_slug);
  perform pgflow._create_routed_flow(
    p_flow_slug, p_shape, v_mode, pgflow._derive_queue_routes(p_flow_slug, p_shape, v_mode)
  );
end;
$$;

-- Refuses a route map that is not the derived one.
create or replace function pgflow._check_route_map(p_flow_slug text, p_supplied jsonb, p_derived jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wrong record;
begin
  if jsonb_array_length(p_supplied) <> jsonb_array_length(p_derived) then
    raise exception 'supplied route map for flow "%" has % entries but % step(s) was derived',
      p_flow_slug, jsonb_array_length(p_supplied), jsonb_array_length(p_derived)
      using detail = 'The route map must cover the complete ordered shape exactly.',
            hint = 'Pass withStepQueues() route snapshots or omit the map to let SQL derive it.';
  end if;
  select s.n, s.value as supplied, p_derived -> (s.n::int - 1) as derived into v_wrong
  from jsonb_array_elements(p_supplied) with ordinality s (value, n)
  where s.value ->> 'stepSlug' is distinct from p_derived -> (s.n::int - 1) ->> 'stepSlug'
    or s.value ->> 'queueName' is distinct from p_derived -> (s.n::int - 1) ->> 'queueName'
  order by s.n
  limit 1;
  if found then
    raise exception 'supplied route map for flow "%" disagrees with the derived route at position %',
      p_flow_slug, v_wrong.n
      using detail = format('Supplied (%s, %s); derived (%s, %s).',
              v_wrong.supplied ->> 'stepSlug', v_wrong.supplied ->> 'queueName',
              v_wrong.derived ->> 'stepSlug', v_wrong.derived ->> 'queueName'),
            hint = 'SQL derives queue names from the flow slug, step slugs, and shape order; fix the supplied map.';
  end if;
end;
$$;

-- How mode and routes of a stored flow differ from those given, one text a difference.
create or replace function pgflow._compare_routing(p_flow_slug text, p_routes jsonb, p_queue_mode text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_mode text := (select f.queue_mode from pgflow.flows f where f.flow_slug = p_flow_slug);
  v_stored text := (
    select coalesce(string_agg(format('%s -> %s', s.step_slug, s.queue_name), ', ' order by s.step_index), '')
    from pgflow.steps s
    where s.flow_slug = p_flow_slug
  );
  v_given text := (
    select coalesce(string_agg(format('%s -> %s', e.value ->> 'stepSlug', e.value ->> 'queueName'), ', ' order by e.n), '')
    from jsonb_array_elements(p_routes) with ordinality e (value, n)
  );
  v_differences text[] := '{}';
begin
  if v_mode is distinct from p_queue_mode then
    v_differences := v_differences
      || format('Queue mode differs: database has ''%s'', worker expects ''%s''', v_mode, p_queue_mode);
  end if;
  if v_stored <> v_given then
    v_differences := v_differences
      || format('Step routes differ: database has [%s], worker expects [%s]', v_stored, v_given);
  end if;
  return v_differences;
end;
$$;

-- Tells a client whose shape says nothing of storages that the stored flow has maps in ranges: it verifies, yet
-- a worker that claims tasks only gets no item of these.
create or replace function pgflow._tell_of_ranges(p_flow_slug text, p_shape jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_maps text := (
    select string_agg(format('"%s"', s.step_slug), ', ' order by s.step_index)
    from pgflow.step_policies p
    join pgflow.steps s on s.flow_slug = p.flow_slug and s.step_slug = p.step_slug
    where p.flow_slug = p_flow_slug and p.storage = 'ranges'
  );
begin
  if v_maps is null or p_shape -> 'options' ? 'defaultStorage' or exists (
    select 1 from jsonb_array_elements(p_shape -> 'steps') e where e.value -> 'options' ? 'storage'
  ) then
    return;
  end if;
  raise notice 'maps of flow "%" are stored in ranges, whose items only workers of pgflow_mp get: %', p_flow_slug, v_maps
    using hint = 'For maps that are shared with other workers, say storage="tasks" in the Python code of the flow.';
end;
$$;

-- What both forms of ensure_flow_compiled do. p_allow_data_loss is for clients that know no modes (null for
-- others) and are told of no routes: a flow in mode "flow" that differs may be replaced, with all its data,
-- and so may any where is_local().
create or replace function pgflow._ensure_flow_compiled(
  p_flow_slug text,
  p_shape jsonb,
  p_queue_mode text,
  p_route_map jsonb,
  p_allow_data_loss boolean
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_mode text := coalesce(p_queue_mode, 'flow');
  v_routes jsonb;
  v_shape_texts text[];
  v_routing_texts text[];
  v_differences jsonb;
begin
  perform pgflow._lock_definition(p_flow_slug); -- workers that start together must not compile one flow twice
  v_routes := pgflow._derive_queue_routes(p_flow_slug, p_shape, v_mode);
  if p_route_map is not null then
    perform pgflow._check_route_map(p_flow_slug, p_route_map, v_routes);
  end if;

  if not exists (select 1 from pgflow.flows f where f.flow_slug = p_flow_slug) then
    perform pgflow._create_routed_flow(p_flow_slug, p_shape, v_mode, v_routes);
    return '{"status": "compiled", "differences": [], "mismatchKind": null}';
  end if;

  v_shape_texts := pgflow._compare_flow_shapes(p_shape, pgflow._get_flow_shape(p_flow_slug));
  v_routing_texts := pgflow._compare_routing(p_flow_slug, v_routes, v_mode);
  if p_allow_data_loss is not null then
    v_routing_texts := array(select t.text from unnest(v_routing_texts) t (text) where t.text like 'Queue mode %');
  end if;
  v_differences := to_jsonb(v_shape_texts || v_routing_texts);
  if jsonb_array_length(v_differences) = 0 then
    perform pgflow._tell_of_ranges(p_flow_slug, p_shape);
    if v_mode = 'step' then
      perform pgflow._assert_step_queue_available(p_flow_slug, e.value ->> 'queueName')
      from jsonb_array_elements(v_routes) e;
    end if;
    return '{"status": "verified", "differences": [], "mismatchKind": null}';
  end if;

  if pgflow.is_local() or (
    p_allow_data_loss
    and exists (select 1 from pgflow.flows f where f.flow_slug = p_flow_slug and f.queue_mode = 'flow')
  ) then
    perform pgflow.delete_flow_and_data(p_flow_slug);
    perform pgflow._create_routed_flow(p_flow_slug, p_shape, v_mode, v_routes);
    return jsonb_build_object('status', 'recompiled', 'differences', v_differences, 'mismatchKind', null);
  end if;
  return jsonb_build_object(
    'status', 'mismatch',
    'differences', v_differences,
    'mismatchKind', case when cardinality(v_shape_texts) > 0 then 'shape' else 'routing' end
  );
end;
$$;

-- Creates the flow of a shape, or compares it with the one that is there: answers its status, "compiled",
-- "verified", "recompiled" or "mismatch", and the differences (contract section 4.6).
create or replace function pgflow.ensure_flow_compiled(
  flow_slug text,
  shape jsonb,
  queue_mode text default 'flow',
  route_map jsonb default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgflow._ensure_flow_compiled(flow_slug, shape, queue_mode, route_map, null); $$;

-- As clients of before the queue modes call it. Without a default: a call with two arguments is for the
-- other one.
create or replace function pgflow.ensure_flow_compiled(flow_slug text, shape jsonb, allow_data_loss boolean)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgflow._ensure_flow_compiled(flow_slug, shape, 'flow', null, coalesce(allow_data_loss, false)); $$;
