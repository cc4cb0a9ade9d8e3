-- Ours: what a completed step has left, whatever its size and its storage, page by page as JSON text.

-- The results of a map in ranges from the page on that holds from_index: one JSON array, of as many whole pages
-- as hold max_bytes (as stored), at least one.
create or replace function pgflow._joined_pages(run_id uuid, step_slug text, from_index int, max_bytes bigint)
returns table (first_index int, items int, body text)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select min(j.first_index), sum(j.items)::int,
    '[' || string_agg(
      (select substr(b.t, 2, length(b.t) - 2) from (select j.body::text as t offset 0) b),
      ', ' order by j.first_index
    ) || ']'
  from (
    select r.first_index, r.items, r.body, sum(pg_column_size(r.body)) over w as bytes, row_number() over w as n,
      first_value(r.first_index) over w + sum(r.items) over w - r.items as expected
    from (
      select p.first_index, p.items, p.body
      from pgflow.pages p
      where p.run_id = _joined_pages.run_id
        and p.step_slug = _joined_pages.step_slug
        and p.is_result
        and p.first_index >= (
          select max(f.first_index)
          from pgflow.pages f
          where f.run_id = _joined_pages.run_id
            and f.step_slug = _joined_pages.step_slug
            and f.is_result
            and f.first_index <= from_index
        )
      order by p.first_index
      limit 1000
    ) r
    window w as (order by r.first_index)
  ) j
  where (j.bytes <= max_bytes or j.n = 1) and j.first_index = j.expected
  having min(j.first_index) + sum(j.items) > from_index;
$$;

-- The same of a map in tasks, from that item on.
create or replace function pgflow._joined_outputs(run_id uuid, step_slug text, from_index int, max_bytes bigint)
returns table (first_index int, items int, body text)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select min(j.task_index), count(*)::int,
    '[' || string_agg(coalesce(j.output::text, 'null'), ', ' order by j.task_index) || ']'
  from (
    select r.task_index, r.output, row_number() over w as n,
      sum(coalesce(pg_column_size(r.output), 4)) over w as bytes
    from (
      select t.task_index, t.output
      from pgflow.step_tasks t
      where t.run_id = _joined_outputs.run_id
        and t.step_slug = _joined_outputs.step_slug
        and t.task_index >= from_index
      order by t.task_index
      limit 5000
    ) r
    window w as (order by r.task_index)
  ) j
  where (j.bytes <= max_bytes or j.n = 1) and j.task_index = from_index + j.n - 1
  having count(*) > 0;
$$;

-- A page of a completed map's outputs that holds the item from_index, as one JSON array in UTF-8: of about
-- max_bytes as stored, or of one item. null stands for what failed and was tolerated. Of a step of one task it is
-- its output, and items is NULL. It comes in pieces of 1 MB, in order, so that nobody needs room for it twice;
-- bytes is the size of them all. Nothing where there is no such item, or the step is not completed.
create or replace function pgflow.output_page(run_id uuid, step_slug text, from_index int, max_bytes bigint)
returns table (first_index int, items int, bytes int, piece bytea)
language plpgsql
stable
security definer
rows 2
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_type text;
  v_body bytea;
begin
  select s.step_type into v_type
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where ss.run_id = output_page.run_id
    and ss.step_slug = output_page.step_slug
    and ss.status = 'completed'
    and coalesce(ss.flow_slug = any ((select pgflow._granted_flows('output_page'))::text[]), true);
  if not found then
    return;
  end if;

  if v_type <> 'map' then
    first_index := 0;
    v_body := (
      select convert_to(coalesce(ss.output, 'null'::jsonb)::text, 'UTF8')
      from pgflow.step_states ss
      where ss.run_id = output_page.run_id and ss.step_slug = output_page.step_slug
    );
  elsif pgflow._is_in_ranges(output_page.run_id, output_page.step_slug) then
    select p.first_index, p.items, convert_to(p.body, 'UTF8') into first_index, items, v_body
    from pgflow._joined_pages(output_page.run_id, output_page.step_slug, from_index, max_bytes) p;
  else
    select p.first_index, p.items, convert_to(p.body, 'UTF8') into first_index, items, v_body
    from pgflow._joined_outputs(output_page.run_id, output_page.step_slug, from_index, max_bytes) p;
  end if;

  if v_body is null then
    return;
  end if;
  bytes := octet_length(v_body);
  for v_at in 0 .. bytes - 1 by 1048576 loop
    piece := substring(v_body from v_at + 1 for 1048576);
    return next;
  end loop;
end;
$$;
