-- Ours: which items of a run failed for good, with what error, and what they had been given.

-- A value in one line of at most so many characters, as JSON that may be cut off at its end; NULL for one of more
-- than 16 MB. Of what is large the beginnings of members are shown, and no text is made of the whole: an array of
-- 1 MB takes 1 ms, and took 11.
create or replace function pgflow._glimpse(value jsonb, max_chars int)
returns text
language plpgsql
immutable
strict
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most constant int := 64;
  v_body text;
begin
  if pg_column_size(value) <= 4096 then
    return left(value::text, max_chars);
  end if;
  if pg_column_size(value) > 16777216 then
    return null;
  end if;
  case jsonb_typeof(value)
    when 'string' then
      return left(to_json(left(value #>> '{}', max_chars))::text, max_chars);
    when 'array' then
      v_body := (
        select string_agg(pgflow._member_glimpse(e.value), ', ' order by e.n)
        from jsonb_array_elements(jsonb_path_query_array(value, '$[0 to 63]')) with ordinality e (value, n)
      );
      return left(
        '[' || v_body || case when jsonb_array_length(value) > v_most then ', ...]' else ']' end, max_chars
      );
    when 'object' then
      v_body := (
        select string_agg(to_json(e.key)::text || ': ' || pgflow._member_glimpse(e.value), ', ' order by e.n)
          || case when count(*) > v_most then ', ...' else '' end
        from (
          select e.key, e.value, e.n
          from jsonb_each(value) with ordinality e (key, value, n)
          limit v_most + 1
        ) e
      );
      return left('{' || v_body || '}', max_chars);
    else
      return left(value::text, max_chars);
  end case;
end;
$$;

-- A member of a large value, or how it begins.
create or replace function pgflow._member_glimpse(value jsonb)
returns text
language sql
immutable
strict
set search_path = pg_catalog, pg_temp
as $$
  select case
    when pg_column_size(value) <= 256 then value::text
    when jsonb_typeof(value) = 'string' then to_json(left(value #>> '{}', 24) || '...')::text
    when jsonb_typeof(value) = 'array' then '[...]'
    when jsonb_typeof(value) = 'object' then '{...}'
    else '...'
  end;
$$;

-- The same of what a step of one task is given: outputs by the slugs of its parents. One that is kept item by item
-- is not put together for it.
create or replace function pgflow._parents_glimpse(flow_slug text, run_id uuid, step_slug text, max_chars int)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select left(
    '{' || string_agg(
      to_json(ss.step_slug)::text || ': ' || coalesce(pgflow._glimpse(ss.output, 256), '[...]'),
      ', ' order by ss.step_slug
    ) || '}',
    max_chars
  )
  from pgflow.deps d
  join pgflow.step_states ss
    on ss.run_id = _parents_glimpse.run_id and ss.step_slug = d.dep_slug and ss.status = 'completed'
  where d.flow_slug = _parents_glimpse.flow_slug and d.step_slug = _parents_glimpse.step_slug;
$$;

-- The failed items of a step from from_index on, in index order, at most so many: of each error the line that says
-- what happened (of a traceback that begins the text, its end), and whether the whole text has this one in it.
create or replace function pgflow.failure_lines(
  run_id uuid,
  step_slug text,
  from_index int,
  max_rows int,
  containing text default null
)
returns table (task_index int, line text, holds boolean)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select t.task_index,
    case
      when t.error_message is null then 'Unknown error'
      when left(t.error_message, 10) = 'Traceback ' then E'Traceback \n' || right(t.error_message, 1000)
      else left(split_part(ltrim(left(t.error_message, 1000), E' \t\r\n'), E'\n', 1), 500)
    end,
    containing is null or position(containing in coalesce(t.error_message, '')) > 0
  from pgflow.runs r
  cross join lateral (
    select t.task_index, t.error_message
    from pgflow.step_tasks t
    where t.run_id = r.run_id
      and t.step_slug = failure_lines.step_slug
      and t.task_index >= from_index
      and t.status = 'failed'
    order by t.task_index
    limit max_rows
  ) t
  where r.run_id = failure_lines.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('failure_lines'))::text[]), true)
  order by t.task_index;
$$;

-- The same items with their errors, and with what they were given: in one line (glimpse), its bytes (of a large one
-- as stored), and whole (input) where that is stored in max_bytes. Of a map it is the item's element, of a step of one task that
-- depends on nothing the run's input; of other steps there is a glimpse alone.
create or replace function pgflow.failed_items(
  run_id uuid,
  step_slug text,
  from_index int,
  max_rows int,
  max_chars int,
  max_bytes bigint
)
returns table (
  task_index int,
  attempts int,
  error_message text,
  glimpse text,
  input_bytes bigint,
  input jsonb
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select t.task_index, t.attempts_count, coalesce(t.error_message, 'Unknown error'),
    case
      when i.input is not null then pgflow._glimpse(i.input, max_chars)
      else pgflow._parents_glimpse(r.flow_slug, r.run_id, s.step_slug, max_chars)
    end,
    case
      when pg_column_size(i.input) <= 4096 then octet_length(i.input::text)
      else pg_column_size(i.input)
    end::bigint,
    case when pg_column_size(i.input) <= max_bytes then i.input end
  from pgflow.runs r
  join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = failed_items.step_slug
  cross join lateral (
    select t.task_index, t.attempts_count, t.error_message, t.input
    from pgflow.step_tasks t
    where t.run_id = r.run_id
      and t.step_slug = s.step_slug
      and t.task_index >= from_index
      and t.status = 'failed'
    order by t.task_index
    limit max_rows
  ) t
  cross join lateral (
    select case
      when s.step_type = 'map' then coalesce(
        t.input,
        (select e from pgflow._map_elements(r.run_id, s.step_slug, t.task_index, t.task_index + 1) e)
      )
      when s.deps_count = 0 then r.input
    end as input
    offset 0
  ) i
  where r.run_id = failed_items.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('failed_items'))::text[]), true)
  order by t.task_index;
$$;
