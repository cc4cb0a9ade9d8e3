-- Ours: pieces of a shape that 0140_shapes.sql reads and writes.

create or replace function pgflow._pattern_shape(pattern jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when pattern is null then '{"defined": false}'::jsonb
    else jsonb_build_object('defined', true, 'value', pattern)
  end;
$$;

create or replace function pgflow._pattern_value(pattern_shape jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select case when (pattern_shape ->> 'defined')::boolean then pattern_shape -> 'value' end; $$;

-- For comparing lists of dependencies: in order, and each once, as add_step stores them.
create or replace function pgflow._sorted_list(list jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(e.value, ', ' order by e.value collate "C"), '')
  from (select distinct value from jsonb_array_elements_text(list)) e (value);
$$;
