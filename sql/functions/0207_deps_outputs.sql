-- Ours: the outputs of a step's parents, which together may be more than one JSON value can hold.

-- Whether a completed map has outputs that its state does not hold: they pass the limit of jsonb, or are read from
-- pages.
create or replace function pgflow._array_is_missing(run_id uuid, step_slug text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from pgflow.step_states ss
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    where ss.run_id = _array_is_missing.run_id
      and ss.step_slug = _array_is_missing.step_slug
      and ss.output is null
      and s.step_type = 'map'
      and (
        exists (
          select 1 from pgflow.step_tasks t
          where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.output is not null
        )
        or pgflow._is_in_ranges(ss.run_id, ss.step_slug)
      )
  );
$$;

-- What a dependent step gets: the object of the outputs of its completed parents. NULL where there can be no
-- such object: the array of a map among them is missing, or all of them together pass the limit of jsonb.
create or replace function pgflow._deps_outputs(flow_slug text, run_id uuid, step_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_outputs jsonb;
begin
  if (
    select sum(coalesce(pg_column_size(ss.output), pgflow._result_bytes(ss.run_id, ss.step_slug)))
        > pgflow._largest_json()
      or bool_or(
        case
          when ss.output is null and not pgflow._is_in_ranges(ss.run_id, ss.step_slug)
            then pgflow._array_is_missing(ss.run_id, ss.step_slug)
        end
      )
    from pgflow.deps d
    join pgflow.step_states ss
      on ss.run_id = _deps_outputs.run_id and ss.step_slug = d.dep_slug
    where d.flow_slug = _deps_outputs.flow_slug
      and d.step_slug = _deps_outputs.step_slug
      and ss.status = 'completed'
  ) then
    return null;
  end if;
  select case
      when not coalesce(bool_or(o.is_in_pages and o.output is null), false)
        then coalesce(
          pgflow._object_of(array_agg(d.dep_slug), array_agg(coalesce(o.output, 'null'::jsonb))), '{}'::jsonb
        )
    end
  into v_outputs
  from pgflow.deps d
  join pgflow.step_states ss
    on ss.run_id = _deps_outputs.run_id and ss.step_slug = d.dep_slug
  cross join lateral (
    select coalesce(ss.output, pgflow._leaf_array(ss.run_id, ss.step_slug)) as output,
      ss.output is null and pgflow._is_in_ranges(ss.run_id, ss.step_slug) as is_in_pages
    offset 0
  ) o
  where d.flow_slug = _deps_outputs.flow_slug
    and d.step_slug = _deps_outputs.step_slug
    and ss.status = 'completed';
  return v_outputs;
exception
  when program_limit_exceeded or out_of_memory then
    return null;
end;
$$;

-- Why a step has no input although its parents are done, as a sentence: whose outputs are too large.
create or replace function pgflow._missing_input(flow_slug text, run_id uuid, step_slug text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'step "%s" task 0: its input is too large: the outputs of %s pass the %s MB that one JSON value may hold '
      'in PostgreSQL',
    _missing_input.step_slug,
    string_agg(
      format(
        '%s "%s" (%s)', case when p.step_type = 'map' then 'map' else 'step' end, d.dep_slug,
        case
          when z.bytes <= pgflow._largest_json() then round(z.bytes / 1048576.0, 1) || ' MB'
          else ss.initial_tasks || ' items, too large alone'
        end
      ),
      ', ' order by z.bytes <= pgflow._largest_json(), z.bytes desc, d.dep_slug
    ),
    pgflow._largest_json() / 1048576
  )
  from pgflow.deps d
  join pgflow.step_states ss
    on ss.run_id = _missing_input.run_id and ss.step_slug = d.dep_slug and ss.status = 'completed'
  cross join lateral (
    select coalesce(
      pg_column_size(ss.output),
      nullif(pgflow._result_bytes(ss.run_id, ss.step_slug), 0),
      1 + pgflow._largest_json()
    ) as bytes
  ) z
  join pgflow.steps p on p.flow_slug = d.flow_slug and p.step_slug = d.dep_slug
  where d.flow_slug = _missing_input.flow_slug
    and d.step_slug = _missing_input.step_slug;
$$;

-- Whether the parents' outputs contain the pattern, looked at one by one: together they are too large for
-- one object. NULL if the pattern asks about a map whose array is missing.
create or replace function pgflow._deps_contain(flow_slug text, run_id uuid, step_slug text, pattern jsonb)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when pattern is null then null
    when jsonb_typeof(pattern) <> 'object' then false
    else (
      select case when not bool_and(f.found) then false when bool_or(f.found is null) then null else true end
      from (
        select case
          when ss.step_slug is null then false
          when ss.output is null and pgflow._array_is_missing(ss.run_id, ss.step_slug) then null
          else jsonb_build_object('o', coalesce(ss.output, 'null'::jsonb)) @> jsonb_build_object('o', e.value)
        end as found
        from jsonb_each(pattern) e
        left join pgflow.deps d
          on d.flow_slug = _deps_contain.flow_slug
          and d.step_slug = _deps_contain.step_slug
          and d.dep_slug = e.key
        left join pgflow.step_states ss
          on ss.run_id = _deps_contain.run_id and ss.step_slug = d.dep_slug and ss.status = 'completed'
      ) f
    )
  end;
$$;
