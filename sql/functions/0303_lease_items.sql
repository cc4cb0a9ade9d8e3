-- Ours: leasing items of one map in ranges.

-- Leases up to want items of one map, in as few stretches as it has them, and answers them. What was handed back
-- comes first. Of what workers died with twice (suspects) a worker gets one stretch, and only where it holds no
-- other. max_bytes bounds the pages that the new items lie in. patient: wait for whoever leases from the map at
-- this moment; else nothing is answered.
create or replace function pgflow._lease_items(
  run_id uuid,
  step_slug text,
  worker_id uuid,
  want int,
  max_bytes bigint,
  patient boolean
)
returns setof pgflow.item_range
language plpgsql
rows 2
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_map record;
  v_free record;
  v_leased pgflow.item_range;
  v_left int := want;
  v_end int;
begin
  if patient then
    select m.items, m.next_index, m.source_step into v_map
    from pgflow.range_maps m
    where m.run_id = _lease_items.run_id and m.step_slug = _lease_items.step_slug and m.is_open
    for update;
  else
    select m.items, m.next_index, m.source_step into v_map
    from pgflow.range_maps m
    where m.run_id = _lease_items.run_id and m.step_slug = _lease_items.step_slug and m.is_open
    for update skip locked;
  end if;
  if not found then
    return;
  end if;

  for v_free in
    select g.ctid as row_id, g.first_index, g.end_index, g.deaths, g.lease_no
    from pgflow.ranges g
    where g.run_id = _lease_items.run_id and g.step_slug = _lease_items.step_slug and g.worker_id is null
    order by g.first_index
    limit 100
    for update skip locked
  loop
    exit when v_left <= 0;
    continue when v_free.deaths >= 2 and pgflow._holds_suspect(_lease_items.worker_id);
    v_end := least(v_free.end_index, v_free.first_index + v_left);
    update pgflow.ranges g
    set worker_id = _lease_items.worker_id,
        lease_no = g.lease_no + 1,
        leased_at = clock_timestamp(),
        end_index = v_end
    where g.ctid = v_free.row_id
    returning g.* into v_leased;
    if v_end < v_free.end_index then
      insert into pgflow.ranges (run_id, step_slug, first_index, end_index, deaths, lease_no)
      values (
        _lease_items.run_id, _lease_items.step_slug, v_end, v_free.end_index, v_free.deaths, v_free.lease_no
      );
    end if;
    v_left := v_left - (v_end - v_free.first_index);
    return next v_leased;
  end loop;

  if v_left > 0 and v_map.next_index < v_map.items then
    v_end := pgflow._lease_end(
      _lease_items.run_id,
      coalesce(v_map.source_step, _lease_items.step_slug),
      v_map.source_step is not null,
      v_map.next_index,
      least(v_map.items, v_map.next_index + v_left),
      max_bytes
    );
    insert into pgflow.ranges as g (run_id, step_slug, first_index, end_index, worker_id, lease_no, leased_at)
    values (
      _lease_items.run_id, _lease_items.step_slug, v_map.next_index, v_end, _lease_items.worker_id, 1,
      clock_timestamp()
    )
    returning g.* into v_leased;
    v_map.next_index := v_end;
    return next v_leased;
  end if;

  update pgflow.range_maps m
  set next_index = v_map.next_index,
      is_open = v_map.next_index < v_map.items or exists (
        select 1 from pgflow.ranges g
        where g.run_id = _lease_items.run_id and g.step_slug = _lease_items.step_slug and g.worker_id is null
      )
  where m.run_id = _lease_items.run_id and m.step_slug = _lease_items.step_slug;
end;
$$;

-- Where a lease of the items from first_index to end_index has to end for its pages to hold about max_bytes.
create or replace function pgflow._lease_end(
  run_id uuid,
  step_slug text,
  is_result boolean,
  first_index int,
  end_index int,
  max_bytes bigint
)
returns int
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select coalesce(
    (
      select b.first_index
      from (
        select p.first_index,
          sum(pg_column_size(p.body)) over (order by p.first_index) - pg_column_size(p.body) as before
        from pgflow.pages p
        where p.run_id = _lease_end.run_id
          and p.step_slug = _lease_end.step_slug
          and p.is_result = _lease_end.is_result
          and p.first_index > _lease_end.first_index
          and p.first_index < _lease_end.end_index
      ) b
      where b.before >= max_bytes
      order by b.first_index
      limit 1
    ),
    end_index
  );
$$;

-- Whether a worker holds anything that others died with twice.
create or replace function pgflow._holds_suspect(worker_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select exists (
    select 1 from pgflow.ranges g where g.worker_id = _holds_suspect.worker_id and g.deaths >= 2
  ) or exists (
    select 1
    from pgflow.step_tasks t
    join pgflow.workers w on w.worker_id = _holds_suspect.worker_id
    join pgflow.steps s on s.queue_name = w.queue_name
    where t.flow_slug = s.flow_slug
      and t.worker_deaths >= 2
      and t.status = 'started'
      and t.last_worker_id = _holds_suspect.worker_id
  );
$$;

-- The pages that hold the elements of these items of a map in ranges.
create or replace function pgflow._pages_of(run_id uuid, step_slug text, from_index int, to_index int)
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
  v_source text;
  v_is_result boolean;
  v_first int;
begin
  select coalesce(m.source_step, m.step_slug), m.source_step is not null into v_source, v_is_result
  from pgflow.range_maps m
  where m.run_id = _pages_of.run_id and m.step_slug = _pages_of.step_slug;
  select p.first_index into v_first
  from pgflow.pages p
  where p.run_id = _pages_of.run_id
    and p.step_slug = v_source
    and p.is_result = v_is_result
    and p.first_index <= from_index
  order by p.first_index desc
  limit 1;
  return query
  select p.page_id, p.first_index, p.items, p.body
  from pgflow.pages p
  where p.run_id = _pages_of.run_id
    and p.step_slug = v_source
    and p.is_result = v_is_result
    and p.first_index >= v_first
    and p.first_index < to_index
  order by p.first_index;
end;
$$;
