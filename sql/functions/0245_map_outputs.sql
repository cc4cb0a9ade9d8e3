-- Ours: what a map in ranges has in pages: its elements, and what it has returned; its exceptions have that in their
-- tasks until the map is done.

-- The pages of a step's elements, or results, that hold something from from_index to to_index (exclusive).
create or replace function pgflow._pages_between(
  run_id uuid,
  step_slug text,
  is_result boolean,
  from_index int,
  to_index int
)
returns table (page_id bigint, first_index int, items int, body jsonb)
language plpgsql
stable
rows 10
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_first int;
begin
  select p.first_index into v_first
  from pgflow.pages p
  where p.run_id = _pages_between.run_id
    and p.step_slug = _pages_between.step_slug
    and p.is_result = _pages_between.is_result
    and p.first_index <= from_index
  order by p.first_index desc
  limit 1;
  return query
  select p.page_id, p.first_index, p.items, p.body
  from pgflow.pages p
  where p.run_id = _pages_between.run_id
    and p.step_slug = _pages_between.step_slug
    and p.is_result = _pages_between.is_result
    and p.first_index >= coalesce(v_first, from_index)
    and p.first_index < to_index
    and p.first_index + p.items > from_index
  order by p.first_index;
end;
$$;

-- The pages that hold the elements of these items of a map in ranges.
create or replace function pgflow._pages_of(run_id uuid, step_slug text, from_index int, to_index int)
returns table (page_id bigint, first_index int, items int, body jsonb)
language sql
stable
rows 10
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from pgflow.range_maps m
  cross join lateral pgflow._pages_between(
    m.run_id, coalesce(m.source_step, m.step_slug), m.source_step is not null, from_index, to_index
  ) p
  where m.run_id = _pages_of.run_id and m.step_slug = _pages_of.step_slug;
$$;

-- The elements of a map, or its results, from from_index to to_index (exclusive), in index order.
create or replace function pgflow._page_elements(
  run_id uuid,
  step_slug text,
  is_result boolean,
  from_index int,
  to_index int
)
returns setof jsonb
language sql
stable
rows 10000
set search_path = pg_catalog, pg_temp
as $$
  select e.value
  from pgflow._pages_between(
    _page_elements.run_id, _page_elements.step_slug, _page_elements.is_result, from_index, to_index
  ) p
  cross join lateral jsonb_array_elements(p.body) with ordinality e (value, n)
  where p.first_index + e.n - 1 >= from_index and p.first_index + e.n - 1 < to_index;
$$;

-- All results as one array; NULL where it would pass the limit of jsonb.
create or replace function pgflow._collect_pages(run_id uuid, step_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_output jsonb;
begin
  if pgflow._result_bytes(_collect_pages.run_id, _collect_pages.step_slug) > pgflow._largest_json() then
    return null;
  end if;
  v_output := (
    select coalesce(to_jsonb(array_agg(e)), '[]'::jsonb)
    from pgflow._page_elements(_collect_pages.run_id, _collect_pages.step_slug, true, 0, 2147483647) e
  );
  return case when pg_column_size(v_output) <= pgflow._largest_json() then v_output end;
exception
  when program_limit_exceeded or out_of_memory then
    return null;
end;
$$;

-- The array of a completed map in ranges, which its step's state need not hold; NULL for all other steps.
create or replace function pgflow._leaf_array(run_id uuid, step_slug text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow._collect_pages(m.run_id, m.step_slug)
  from pgflow.range_maps m
  where m.run_id = _leaf_array.run_id and m.step_slug = _leaf_array.step_slug;
$$;

-- The map is done: what its exceptions returned is written into pages, too, of consecutive ones and of about 64 kB,
-- so that the pages cover it whole. Answers the new pages; what was written before is left. Caller holds the
-- locks of the run and the step.
create or replace function pgflow._append_task_results(run_id uuid, step_slug text)
returns table (first_index int, items int)
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)
  select run_id, step_slug, true, min(i.task_index), count(*), to_jsonb(array_agg(i.output order by i.task_index))
  from (
    select t.task_index, coalesce(t.output, 'null'::jsonb) as output,
      t.task_index - row_number() over (order by t.task_index) as island,
      sum(coalesce(pg_column_size(t.output), 8)) over (order by t.task_index) / 65536 as page
    from pgflow.step_tasks t
    where t.run_id = _append_task_results.run_id
      and t.step_slug = _append_task_results.step_slug
      and (t.status in ('completed', 'failed') or t.failed_at is not null) -- or stalled for good
      and coalesce(
        (
          select p.first_index + p.items <= t.task_index
          from pgflow.pages p
          where p.run_id = t.run_id and p.step_slug = t.step_slug and p.is_result and p.first_index <= t.task_index
          order by p.first_index desc
          limit 1
        ),
        true
      )
  ) i
  group by i.island, i.page
  returning pages.first_index, pages.items;
$$;
