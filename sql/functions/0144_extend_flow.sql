-- Ours: a stored flow that the code's has outgrown is taken over with its runs.

-- How the code's flow differs from the stored one, in words that say which is which. kind: added, of a step that only
-- the code has; condition, of what decides whether a step runs and what follows from its failure; else what no run
-- could live with.
create or replace function pgflow._flow_differences(p_flow_slug text, p_shape jsonb, p_queue_mode text)
returns table (kind text, step_slug text, difference text)
language sql
set search_path = pg_catalog, pg_temp
as $$
  with code as (
    select e.value as shape, e.value ->> 'slug' as slug, e.n, r.value ->> 'queueName' as queue_name
    from jsonb_array_elements(coalesce(p_shape -> 'steps', '[]'::jsonb)) with ordinality e (value, n)
    left join jsonb_array_elements(pgflow._derive_queue_routes(p_flow_slug, p_shape, p_queue_mode))
      with ordinality r (value, n) on r.n = e.n
  ), stored as (
    select e.value as shape, e.value ->> 'slug' as slug, e.n, s.queue_name
    from jsonb_array_elements(pgflow._get_flow_shape(p_flow_slug) -> 'steps') with ordinality e (value, n)
    join pgflow.steps s on s.flow_slug = p_flow_slug and s.step_slug = e.value ->> 'slug'
  ), alike as (
    select c.slug, c.n, c.shape as code, s.shape as stored, c.queue_name as code_queue, s.queue_name as stored_queue,
      row_number() over (order by c.n) as place, row_number() over (order by s.n) as stored_place
    from code c
    join stored s using (slug)
  )
  select d.kind, d.slug, d.difference
  from (
    select 'queues' as kind, null::text as slug, 0 as part, 0::bigint as n, format(
      'the code has %s, the database %s',
      case p_queue_mode when 'step' then 'a queue for each step' else 'one queue for the flow' end,
      case f.queue_mode when 'step' then 'a queue for each step' else 'one for the flow' end
    ) as difference
    from pgflow.flows f
    where f.flow_slug = p_flow_slug and f.queue_mode <> p_queue_mode
    union all
    select 'added', c.slug, 1, c.n, format('the code has step "%s", the database has not', c.slug)
    from code c
    where not exists (select 1 from stored s where s.slug = c.slug)
    union all
    select 'missing', s.slug, 2, s.n, format('the database has step "%s", the code has not', s.slug)
    from stored s
    where not exists (select 1 from code c where c.slug = s.slug)
    union all
    (
      select 'order', a.slug, 3, a.n, format(
        'step "%s" comes before "%s" in the code, after it in the database',
        a.slug, (select b.slug from alike b where b.stored_place = a.place)
      )
      from alike a
      where a.place <> a.stored_place
      order by a.place
      limit 1
    )
    union all
    select v.kind, a.slug, v.part, a.n, v.difference
    from alike a
    cross join lateral (
      select pgflow._sorted_list(coalesce(a.code -> 'dependencies', '[]'::jsonb)) as code,
        pgflow._sorted_list(a.stored -> 'dependencies') as stored
    ) deps
    cross join lateral (
      values
        (
          'type', 4, coalesce(a.code ->> 'stepType', 'single') <> a.stored ->> 'stepType',
          format(
            'step "%s" is %s in the code, %s in the database', a.slug,
            case a.code ->> 'stepType' when 'map' then 'a map' else 'no map' end,
            case a.stored ->> 'stepType' when 'map' then 'a map' else 'no map' end
          )
        ),
        (
          'dependencies', 5, deps.code <> deps.stored,
          format(
            'step "%s" depends on %s in the code, on %s in the database', a.slug,
            coalesce(nullif(deps.code, ''), 'nothing'), coalesce(nullif(deps.stored, ''), 'nothing')
          )
        ),
        (
          'queues', 6, a.code_queue <> a.stored_queue,
          format(
            'step "%s" has the queue "%s" in the code, "%s" in the database', a.slug, a.code_queue, a.stored_queue
          )
        )
    ) v (kind, part, differs, difference)
    -- Where the mode is another, so is every queue.
    where v.differs and (v.kind <> 'queues' or (
      select f.queue_mode = p_queue_mode from pgflow.flows f where f.flow_slug = p_flow_slug
    ))
    union all
    select 'condition', a.slug, 7, a.n, format(
      '%s of step "%s" is %s in the code, %s in the database',
      v.option, a.slug, coalesce(v.code, 'not set'), coalesce(v.stored, 'not set')
    )
    from alike a
    cross join lateral (
      values
        (
          'when', pgflow._pattern_value(a.code -> 'requiredInputPattern')::text,
          pgflow._pattern_value(a.stored -> 'requiredInputPattern')::text
        ),
        (
          'unless', pgflow._pattern_value(a.code -> 'forbiddenInputPattern')::text,
          pgflow._pattern_value(a.stored -> 'forbiddenInputPattern')::text
        ),
        ('when_unmet', coalesce(a.code ->> 'whenUnmet', a.stored ->> 'whenUnmet'), a.stored ->> 'whenUnmet'),
        (
          'when_exhausted', coalesce(a.code ->> 'whenExhausted', a.stored ->> 'whenExhausted'),
          a.stored ->> 'whenExhausted'
        )
    ) v (option, code, stored)
    where v.code is distinct from v.stored
  ) d
  order by d.part, d.n;
$$;

-- Writes a step as its shape says it, with its dependencies.
create or replace function pgflow._insert_step(p_flow_slug text, p_step jsonb, p_step_index int, p_queue_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_slug text := p_step ->> 'slug';
  v_type text := coalesce(p_step ->> 'stepType', 'single');
  v_options jsonb := p_step -> 'options';
  v_deps text[] := array(
    select d.slug
    from jsonb_array_elements_text(coalesce(p_step -> 'dependencies', '[]'::jsonb)) with ordinality d (slug, n)
    group by d.slug
    order by min(d.n)
  );
begin
  perform pgflow._check_dependencies(v_slug, v_type, v_deps);
  insert into pgflow.steps (
    flow_slug, step_slug, step_type, step_index, deps_count,
    opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay,
    required_input_pattern, forbidden_input_pattern, when_unmet, when_exhausted, queue_name
  )
  values (
    p_flow_slug, v_slug, v_type, p_step_index, cardinality(v_deps),
    (v_options ->> 'maxAttempts')::int,
    (v_options ->> 'baseDelay')::int,
    (v_options ->> 'timeout')::int,
    (v_options ->> 'startDelay')::int,
    pgflow._pattern_value(p_step -> 'requiredInputPattern'),
    pgflow._pattern_value(p_step -> 'forbiddenInputPattern'),
    coalesce(p_step ->> 'whenUnmet', 'skip'),
    coalesce(p_step ->> 'whenExhausted', 'fail'),
    p_queue_name
  )
  on conflict on constraint steps_pkey do nothing;
  insert into pgflow.deps (flow_slug, dep_slug, step_slug)
  select p_flow_slug, d.slug, v_slug
  from unnest(v_deps) with ordinality d (slug, n)
  order by d.n
  on conflict on constraint deps_pkey do nothing;
end;
$$;

-- Adds the steps that only the code has, in the code's order, and takes its conditions over. Runs that there are keep
-- the steps that they began with. Caller holds the definition's lock, and has found nothing else to differ.
create or replace function pgflow._extend_flow(p_flow_slug text, p_shape jsonb, p_queue_mode text, p_added text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_routes jsonb := pgflow._derive_queue_routes(p_flow_slug, p_shape, p_queue_mode);
  v_step record;
begin
  if p_queue_mode = 'step' then
    for v_step in
      select r.value ->> 'queueName' as queue_name
      from jsonb_array_elements(v_routes) with ordinality r (value, n)
      where r.value ->> 'stepSlug' = any (p_added)
      order by r.n
    loop
      if pgflow._assert_step_queue_available(p_flow_slug, v_step.queue_name) then
        perform pgflow._create_queue(v_step.queue_name);
      end if;
    end loop;
  end if;

  -- The index is part of a key: who starts a run shares the rows' locks, in the same order.
  if exists (
    select 1
    from jsonb_array_elements(p_shape -> 'steps') with ordinality e (value, n)
    join pgflow.steps s on s.flow_slug = p_flow_slug and s.step_slug = e.value ->> 'slug'
    where s.step_index <> e.n - 1
  ) then
    perform 1 from pgflow.steps s where s.flow_slug = p_flow_slug order by s.step_index for update;
    update pgflow.steps s set step_index = -1 - s.step_index where s.flow_slug = p_flow_slug;
    update pgflow.steps s
    set step_index = e.n - 1
    from jsonb_array_elements(p_shape -> 'steps') with ordinality e (value, n)
    where s.flow_slug = p_flow_slug and s.step_slug = e.value ->> 'slug';
  end if;

  for v_step in
    select e.value as shape, e.n::int - 1 as step_index, v_routes -> (e.n::int - 1) ->> 'queueName' as queue_name
    from jsonb_array_elements(p_shape -> 'steps') with ordinality e (value, n)
    where e.value ->> 'slug' = any (p_added)
    order by e.n
  loop
    perform pgflow._insert_step(p_flow_slug, v_step.shape, v_step.step_index, v_step.queue_name);
  end loop;
  insert into pgflow.added_steps (flow_slug, step_slug) select p_flow_slug, a.slug from unnest(p_added) a (slug);
  perform pgflow._set_policies_from_shape(
    p_flow_slug,
    p_shape || jsonb_build_object('steps', (
      select coalesce(jsonb_agg(e.value order by e.n), '[]'::jsonb)
      from jsonb_array_elements(p_shape -> 'steps') with ordinality e (value, n)
      where e.value ->> 'slug' = any (p_added)
    )),
    true
  );
  perform pgflow._set_requirements_from_shape(p_flow_slug, p_shape, p_added);
  perform pgflow.define_limit(p_flow_slug, e.value ->> 'slug', l.at_once, l.rate, l.burst)
  from jsonb_array_elements(p_shape -> 'steps') e
  cross join lateral pgflow._limit_in(e.value) l
  where e.value ->> 'slug' = any (p_added);

  update pgflow.steps s
  set required_input_pattern = c.required,
      forbidden_input_pattern = c.forbidden,
      when_unmet = coalesce(c.unmet, s.when_unmet),
      when_exhausted = coalesce(c.exhausted, s.when_exhausted)
  from (
    select e.value ->> 'slug' as slug,
      pgflow._pattern_value(e.value -> 'requiredInputPattern') as required,
      pgflow._pattern_value(e.value -> 'forbiddenInputPattern') as forbidden,
      e.value ->> 'whenUnmet' as unmet,
      e.value ->> 'whenExhausted' as exhausted
    from jsonb_array_elements(p_shape -> 'steps') e
  ) c
  where s.flow_slug = p_flow_slug
    and s.step_slug = c.slug
    and (s.required_input_pattern, s.forbidden_input_pattern, s.when_unmet, s.when_exhausted) is distinct from
      (c.required, c.forbidden, coalesce(c.unmet, s.when_unmet), coalesce(c.exhausted, s.when_exhausted));
end;
$$;

-- What ensure_flow_compiled does, but a flow that the code's has only added steps to is extended, with status
-- "extended" and the new steps in "added". With conditions those of stored steps are taken over, too, which are in
-- "changed" then. What else differs is a mismatch as ever, and its "words" say which side is which, "conditionsOnly"
-- whether they could be taken over. Where is_local()
-- no flow is deleted that can be extended.
create or replace function pgflow.take_over_flow(
  flow_slug text,
  shape jsonb,
  queue_mode text default 'flow',
  conditions boolean default false
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_mode text := coalesce(queue_mode, 'flow');
  v_added text[];
  v_words text[];
  v_changed text[];
  v_extends boolean := false;
  v_could boolean := false;
  v_compiled jsonb;
begin
  perform pgflow._lock_definition(take_over_flow.flow_slug);
  if exists (select 1 from pgflow.flows f where f.flow_slug = take_over_flow.flow_slug) then
    select coalesce(array_agg(d.step_slug) filter (where d.kind = 'added'), '{}'),
      coalesce(array_agg(d.difference) filter (where d.kind = 'condition'), '{}'),
      coalesce(array_agg(d.difference), '{}'),
      count(*) > 0 and bool_and(d.kind = 'added' or (d.kind = 'condition' and take_over_flow.conditions)),
      bool_and(d.kind in ('added', 'condition'))
    into v_added, v_changed, v_words, v_extends, v_could
    from pgflow._flow_differences(take_over_flow.flow_slug, shape, v_mode) d;
  end if;
  if v_extends then
    perform pgflow._extend_flow(take_over_flow.flow_slug, shape, v_mode, v_added);
    return jsonb_build_object(
      'status', 'extended', 'differences', '[]'::jsonb, 'mismatchKind', null,
      'added', to_jsonb(v_added), 'changed', to_jsonb(v_changed)
    );
  end if;
  v_compiled := pgflow._ensure_flow_compiled(take_over_flow.flow_slug, shape, v_mode, null, null);
  if v_compiled ->> 'status' = 'mismatch' then
    v_compiled := v_compiled || jsonb_build_object('words', to_jsonb(v_words), 'conditionsOnly', v_could);
  end if;
  return v_compiled;
end;
$$;

-- The steps that came to a flow when it was extended: a worker whose code has not got one is older, and leaves its
-- tasks to others.
create or replace function pgflow.steps_added(flow_slug text)
returns setof text
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select a.step_slug
  from pgflow.added_steps a
  where a.flow_slug = steps_added.flow_slug
    and coalesce(a.flow_slug = any ((select pgflow._granted_flows('steps_added'))::text[]), true)
  order by a.step_slug;
$$;
