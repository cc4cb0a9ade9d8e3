-- Ours: a map in ranges is started. Its items are no rows: the elements lie in pages, or are its parent's results.

-- Writes a map's elements as pages of about 64 kB: an array costs each cut its whole length where it is not in
-- memory, so it is brought there once.
create or replace function pgflow._write_elements(run_id uuid, step_slug text, elements jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_elements jsonb := jsonb_path_query_first(elements, '$');
  v_count int := jsonb_array_length(v_elements);
  v_size int := least(10000, greatest(1, (65536.0 * v_count / pg_column_size(v_elements))::int));
  v_body jsonb;
begin
  for v_first in 0 .. v_count - 1 by v_size loop
    v_body := jsonb_path_query_array(
      v_elements,
      '$[$from to $to]',
      jsonb_build_object('from', v_first, 'to', least(v_first + v_size, v_count) - 1)
    );
    perform pgflow._require_text(v_first, least(v_size, v_count - v_first), v_body);
    insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)
    values (
      _write_elements.run_id,
      _write_elements.step_slug,
      false,
      v_first,
      least(v_size, v_count - v_first),
      v_body
    );
  end loop;
end;
$$;

-- What the numbers of a map's leases begin behind: more than all that it had if it was started before and withdrawn,
-- for a lease is handed back and leased anew some thousand times at most.
create or replace function pgflow._lease_base(run_id uuid, step_slug text)
returns int
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select 1048576 * least(w.times, 2047)
      from pgflow.withdrawn_maps w
      where w.run_id = _lease_base.run_id and w.step_slug = _lease_base.step_slug
    ),
    0
  );
$$;

-- Starts a map in ranges. Caller holds the run's lock.
create or replace function pgflow._open_ranges(
  flow_slug text,
  run_id uuid,
  step_slug text,
  items int,
  start_delay int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_parent text;
  v_source text;
  v_elements jsonb;
begin
  select d.dep_slug into v_parent
  from pgflow.deps d
  where d.flow_slug = _open_ranges.flow_slug and d.step_slug = _open_ranges.step_slug;

  v_source := pgflow._source_in_pages(_open_ranges.run_id, v_parent);
  if v_source is null then
    if v_parent is null then
      select r.input into v_elements from pgflow.runs r where r.run_id = _open_ranges.run_id;
    else
      select ss.output into v_elements
      from pgflow.step_states ss
      where ss.run_id = _open_ranges.run_id and ss.step_slug = v_parent;
    end if;
    if v_elements is not null then
      perform pgflow._write_elements(_open_ranges.run_id, _open_ranges.step_slug, v_elements);
    else -- outputs of tasks that pass the limit of jsonb together
      for v_first in 0 .. items - 1 by 1000 loop
        perform pgflow._write_element_pages(
          _open_ranges.run_id, _open_ranges.step_slug, v_first, least(v_first + 1000, items)
        );
      end loop;
    end if;
  end if;

  insert into pgflow.range_maps as m (run_id, step_slug, flow_slug, items, not_before, source_step, lease_base)
  values (
    _open_ranges.run_id,
    _open_ranges.step_slug,
    _open_ranges.flow_slug,
    _open_ranges.items,
    case when start_delay > 0 then clock_timestamp() + make_interval(secs => start_delay) end,
    v_source,
    pgflow._lease_base(_open_ranges.run_id, _open_ranges.step_slug)
  );
  perform pgflow._open_ahead(
    _open_ranges.flow_slug, _open_ranges.run_id, _open_ranges.step_slug, _open_ranges.items
  );
  perform pg_notify('pgflow_work', _open_ranges.flow_slug);
end;
$$;

-- Pages of about 64 kB of elements that a map's parent has in its tasks.
create or replace function pgflow._write_element_pages(run_id uuid, step_slug text, from_index int, to_index int)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)
  select run_id, step_slug, false, min(c.i), count(*), to_jsonb(array_agg(c.e order by c.i))
  from (
    select from_index + e.n - 1 as i, e.e,
      (sum(pg_column_size(e.e)) over (order by e.n) - pg_column_size(e.e)) / 65536 as page
    from pgflow._map_elements(run_id, step_slug, from_index, to_index) with ordinality e (e, n)
  ) c
  group by c.page;
$$;

-- These maps of a run, or all, are over: nothing more is leased. What was leased is free, so that a retry finds it.
-- Caller holds the run's lock; whoever leases at this moment is waited for.
create or replace function pgflow._close_ranges(run_id uuid, step_slugs text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  perform 1
  from pgflow.range_maps m
  where m.run_id = _close_ranges.run_id and (step_slugs is null or m.step_slug = any (step_slugs))
  order by m.step_slug collate "C"
  for update;
  if not found then
    return;
  end if;
  update pgflow.range_maps m
  set is_open = false
  where m.run_id = _close_ranges.run_id and (step_slugs is null or m.step_slug = any (step_slugs));
  update pgflow.ranges g
  set worker_id = null
  where g.run_id = _close_ranges.run_id
    and (step_slugs is null or g.step_slug = any (step_slugs))
    and g.worker_id is not null;
end;
$$;

-- Whether an item that is a task has its result in a page, too: whatever maps over it may have it by now.
create or replace function pgflow._has_result(run_id uuid, step_slug text, task_index int)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select coalesce(
    (
      select p.first_index + p.items > _has_result.task_index
      from pgflow.pages p
      where p.run_id = _has_result.run_id
        and p.step_slug = _has_result.step_slug
        and p.is_result
        and p.first_index <= _has_result.task_index
      order by p.first_index desc
      limit 1
    ),
    false
  );
$$;

-- A failed run's map goes on where it was. Answers how many of its items are done, or NULL where it is no map in
-- ranges. Caller holds the run's lock.
create or replace function pgflow._reopen_ranges(run_id uuid, step_slug text)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  update pgflow.range_maps m
  set is_open = true
  where m.run_id = _reopen_ranges.run_id and m.step_slug = _reopen_ranges.step_slug;
  if not found then
    return null;
  end if;
  update pgflow.ranges g
  set deaths = 0
  where g.run_id = _reopen_ranges.run_id and g.step_slug = _reopen_ranges.step_slug and g.deaths > 0;
  return (
    select coalesce(sum(p.items), 0)
    from pgflow.pages p
    where p.run_id = _reopen_ranges.run_id and p.step_slug = _reopen_ranges.step_slug and p.is_result
  ) + (
    select count(*)
    from pgflow.step_tasks t
    where t.run_id = _reopen_ranges.run_id
      and t.step_slug = _reopen_ranges.step_slug
      and t.status = 'completed'
      and not pgflow._has_result(t.run_id, t.step_slug, t.task_index)
  );
end;
$$;
