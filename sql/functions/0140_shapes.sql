-- Flow shapes (contract sections 4.3 and 4.4).

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
