-- Flow shapes (contract sections 4.3 to 4.7).

create or replace function pgflow._get_flow_shape(p_flow_slug text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('steps', coalesce(jsonb_agg(
    jsonb_build_object(
      'slug', s.step_slug,
      'stepType', s.step_type,
      'dependencies', (
        select coalesce(jsonb_agg(d.dep_slug order by d.dep_slug collate "C"), '[]'::jsonb)
        from pgflow.deps d
        where d.flow_slug = s.flow_slug and d.step_slug = s.step_slug
      ),
      'whenUnmet', s.when_unmet,
      'whenExhausted', s.when_exhausted,
      'requiredInputPattern', pgflow._pattern_shape(s.required_input_pattern),
      'forbiddenInputPattern', pgflow._pattern_shape(s.forbidden_input_pattern)
    )
    order by s.step_index
  ), '[]'::jsonb))
  from pgflow.steps s
  where s.flow_slug = p_flow_slug;
$$;

create or replace function pgflow._compare_flow_shapes(p_local jsonb, p_db jsonb)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_differences text[] := '{}';
  v_local_count int := coalesce(jsonb_array_length(p_local -> 'steps'), 0);
  v_db_count int := coalesce(jsonb_array_length(p_db -> 'steps'), 0);
  v_local jsonb;
  v_db jsonb;
  v_local_text text;
  v_db_text text;
  v_key text;
begin
  if v_local_count <> v_db_count then
    v_differences := v_differences || format('Step count differs: %s vs %s', v_local_count, v_db_count);
  end if;

  for i in 0 .. greatest(v_local_count, v_db_count) - 1 loop
    v_local := p_local -> 'steps' -> i;
    v_db := p_db -> 'steps' -> i;
    if v_local is null then
      v_differences := v_differences
        || format('Step at index %s: missing in first shape (second has ''%s'')', i, v_db ->> 'slug');
      continue;
    elsif v_db is null then
      v_differences := v_differences
        || format('Step at index %s: missing in second shape (first has ''%s'')', i, v_local ->> 'slug');
      continue;
    end if;

    if v_local ->> 'slug' <> v_db ->> 'slug' then
      v_differences := v_differences
        || format('Step at index %s: slug differs ''%s'' vs ''%s''', i, v_local ->> 'slug', v_db ->> 'slug');
    end if;

    if v_local ->> 'stepType' <> v_db ->> 'stepType' then
      v_differences := v_differences
        || format('Step at index %s: type differs ''%s'' vs ''%s''', i, v_local ->> 'stepType', v_db ->> 'stepType');
    end if;

    v_local_text := pgflow._sorted_list(v_local -> 'dependencies');
    v_db_text := pgflow._sorted_list(v_db -> 'dependencies');
    if v_local_text <> v_db_text then
      v_differences := v_differences
        || format('Step at index %s: dependencies differ [%s] vs [%s]', i, v_local_text, v_db_text);
    end if;

    foreach v_key in array array['whenUnmet', 'whenExhausted'] loop
      if v_local ->> v_key <> v_db ->> v_key then
        v_differences := v_differences
          || format('Step at index %s: %s differs ''%s'' vs ''%s''', i, v_key, v_local ->> v_key, v_db ->> v_key);
      end if;
    end loop;

    foreach v_key in array array['requiredInputPattern', 'forbiddenInputPattern'] loop
      if (v_local -> v_key) is distinct from (v_db -> v_key) then
        v_differences := v_differences || format('Step at index %s: %s differs ''%s'' vs ''%s''',
          i, v_key, coalesce((v_local -> v_key)::text, ''), coalesce((v_db -> v_key)::text, ''));
      end if;
    end loop;
  end loop;

  return v_differences;
end;
$$;

create or replace function pgflow._create_flow_from_shape(p_flow_slug text, p_shape jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_options jsonb := p_shape -> 'options';
  v_step jsonb;
begin
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
  perform pgflow._set_policies_from_shape(p_flow_slug, p_shape);
end;
$$;

create or replace function pgflow.ensure_flow_compiled(
  flow_slug text,
  shape jsonb,
  allow_data_loss boolean default false
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_differences text[];
begin
  -- Workers that start together must not compile one flow twice.
  perform pg_advisory_xact_lock(1, hashtext(ensure_flow_compiled.flow_slug));

  if not exists (select 1 from pgflow.flows f where f.flow_slug = ensure_flow_compiled.flow_slug) then
    perform pgflow._create_flow_from_shape(ensure_flow_compiled.flow_slug, shape);
    return jsonb_build_object('status', 'compiled', 'differences', '[]'::jsonb);
  end if;

  v_differences := pgflow._compare_flow_shapes(shape, pgflow._get_flow_shape(ensure_flow_compiled.flow_slug));
  if cardinality(v_differences) = 0 then
    return jsonb_build_object('status', 'verified', 'differences', '[]'::jsonb);
  end if;

  if pgflow.is_local() or coalesce(allow_data_loss, false) then
    perform pgflow.delete_flow_and_data(ensure_flow_compiled.flow_slug);
    perform pgflow._create_flow_from_shape(ensure_flow_compiled.flow_slug, shape);
    return jsonb_build_object('status', 'recompiled', 'differences', to_jsonb(v_differences));
  end if;
  return jsonb_build_object('status', 'mismatch', 'differences', to_jsonb(v_differences));
end;
$$;

create or replace function pgflow.delete_flow_and_data(p_flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
begin
  -- Runs first, as everywhere: whoever settles has its run's lock, and will want the queue.
  perform 1 from pgflow.runs r where r.flow_slug = p_flow_slug order by r.run_id for update;
  perform pgmq.drop_queue(p_flow_slug);
  delete from pgflow.step_tasks t using pgflow.runs r
  where r.flow_slug = p_flow_slug and t.run_id = r.run_id;
  delete from pgflow.step_states s where s.flow_slug = p_flow_slug;
  delete from pgflow.runs r where r.flow_slug = p_flow_slug;
  delete from pgflow.deps d where d.flow_slug = p_flow_slug;
  delete from pgflow.steps s where s.flow_slug = p_flow_slug;
  delete from pgflow.flows f where f.flow_slug = p_flow_slug;
end;
$$;
