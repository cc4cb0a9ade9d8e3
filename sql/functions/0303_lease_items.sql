-- Ours: leasing items of one map in ranges.

-- Leases up to want items of one map to a worker, in as few stretches as it has them. What was handed back comes
-- first. Of what workers died with twice (suspects) a worker gets one stretch, and only where it holds no other.
-- They are added to leased, and to sources of each the map whose results are its elements, or null; items_left and
-- bytes_left, which their pages may hold as far as those are not counted yet, lose what they take: stretches end with
-- the page that uses the bytes up. row_id is where the map's row was seen last: while a transaction is open elsewhere
-- the row's old versions stay, and a look-up by its key passes over them all.
-- is_locked: somebody else leases from the map at this moment, or did so until it had nothing left. A patient
-- caller waits for that one, half a second at most: two that wait for each other, each for a map that the other
-- found empty, go on.
create or replace function pgflow._lease_from_map(
  flow_slug text,
  run_id uuid,
  step_slug text,
  row_id tid,
  worker_id uuid,
  want int,
  patient boolean,
  inout leased pgflow.item_range[],
  inout sources text[],
  inout items_left int,
  inout bytes_left bigint,
  out is_locked boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_row tid;
  v_items int;
  v_next int;
  v_source text;
  v_base int;
  v_free record;
  v_lease pgflow.item_range;
  v_left int := want;
  v_end int;
  v_counted int := -1;
  v_holds_suspect boolean;
  v_is_open boolean;
  v_timeout text := current_setting('lock_timeout');
begin
  select m.ctid, m.items, m.next_index, m.source_step, m.lease_base
  into v_row, v_items, v_next, v_source, v_base
  from pgflow.range_maps m
  where m.ctid = row_id
    and m.run_id = _lease_from_map.run_id
    and m.step_slug = _lease_from_map.step_slug
    and m.is_open
  for update skip locked;
  if v_items is null then
    select m.ctid, m.items, m.next_index, m.source_step, m.lease_base
    into v_row, v_items, v_next, v_source, v_base
    from pgflow.range_maps m
    where m.run_id = _lease_from_map.run_id and m.step_slug = _lease_from_map.step_slug and m.is_open
    for update skip locked;
  end if;
  if v_items is null and patient then
    begin
      perform set_config('lock_timeout', '500ms', true);
      select m.ctid, m.items, m.next_index, m.source_step, m.lease_base
      into v_row, v_items, v_next, v_source, v_base
      from pgflow.range_maps m
      where m.run_id = _lease_from_map.run_id and m.step_slug = _lease_from_map.step_slug and m.is_open
      for update;
      perform set_config('lock_timeout', v_timeout, true);
    exception when lock_not_available then
      null;
    end;
  end if;
  is_locked := v_items is null;
  if is_locked then
    return;
  end if;

  for v_free in
    select g.ctid as row_id, g.first_index, g.end_index, g.deaths, g.lease_no
    from pgflow.ranges g
    where g.run_id = _lease_from_map.run_id and g.step_slug = _lease_from_map.step_slug and g.worker_id is null
    order by g.first_index
    for update
  loop
    exit when v_left <= 0 or bytes_left <= 0;
    if v_free.deaths >= 2 then
      v_holds_suspect := coalesce(
        v_holds_suspect, pgflow._holds_suspect(_lease_from_map.flow_slug, _lease_from_map.worker_id)
      );
      continue when v_holds_suspect;
      v_holds_suspect := true;
    end if;
    select b.end_index, bytes_left - b.bytes, b.last_page into v_end, bytes_left, v_counted
    from pgflow._bound_lease(
      _lease_from_map.run_id, coalesce(v_source, _lease_from_map.step_slug), v_source is not null,
      v_free.first_index, v_free.first_index + least(v_left, v_free.end_index - v_free.first_index),
      v_counted, bytes_left
    ) b;
    update pgflow.ranges g
    set worker_id = _lease_from_map.worker_id,
        lease_no = g.lease_no + 1,
        leased_at = clock_timestamp(),
        end_index = v_end
    where g.ctid = v_free.row_id
    returning g.* into v_lease;
    if v_end < v_free.end_index then
      insert into pgflow.ranges (run_id, step_slug, first_index, end_index, deaths, lease_no)
      values (
        _lease_from_map.run_id, _lease_from_map.step_slug, v_end, v_free.end_index, v_free.deaths,
        v_free.lease_no
      );
    end if;
    v_left := v_left - (v_end - v_free.first_index);
    leased := leased || v_lease;
    sources := sources || v_source;
  end loop;

  v_end := v_next;
  if v_left > 0 and v_next < v_items and bytes_left > 0 then
    select b.end_index, bytes_left - b.bytes into v_end, bytes_left
    from pgflow._bound_lease(
      _lease_from_map.run_id, coalesce(v_source, _lease_from_map.step_slug), v_source is not null,
      v_next, v_next + least(v_left, v_items - v_next), v_counted, bytes_left
    ) b;
    insert into pgflow.ranges as g (run_id, step_slug, first_index, end_index, worker_id, lease_no, leased_at)
    values (
      _lease_from_map.run_id, _lease_from_map.step_slug, v_next, v_end, _lease_from_map.worker_id, v_base + 1,
      clock_timestamp()
    )
    returning g.* into v_lease;
    v_left := v_left - (v_end - v_next);
    leased := leased || v_lease;
    sources := sources || v_source;
  end if;
  items_left := items_left - (want - v_left);

  v_is_open := v_end < v_items or exists (
    select 1 from pgflow.ranges g
    where g.run_id = _lease_from_map.run_id and g.step_slug = _lease_from_map.step_slug and g.worker_id is null
  );
  if v_end > v_next or not v_is_open then
    update pgflow.range_maps m
    set next_index = v_end, is_open = v_is_open
    where m.ctid = v_row;
  end if;
end;
$$;

-- Where a lease of the items from first_index to end_index has to end for its pages to hold about max_bytes: with
-- the page that reaches them. Pages up to the one that begins with item counted are counted already. Answers what
-- the others hold, too, and the first item of the last one.
create or replace function pgflow._bound_lease(
  run_id uuid,
  step_slug text,
  is_result boolean,
  first_index int,
  inout end_index int,
  counted int,
  max_bytes bigint,
  out bytes bigint,
  out last_page int
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_page record;
begin
  bytes := 0;
  last_page := counted;
  for v_page in
    select p.first_index, pg_column_size(p.body) as size
    from pgflow.pages p
    where p.run_id = _bound_lease.run_id
      and p.step_slug = _bound_lease.step_slug
      and p.is_result = _bound_lease.is_result
      and p.first_index > counted
      and p.first_index < _bound_lease.end_index
      and p.first_index >= coalesce(
        (
          select max(f.first_index)
          from pgflow.pages f
          where f.run_id = _bound_lease.run_id
            and f.step_slug = _bound_lease.step_slug
            and f.is_result = _bound_lease.is_result
            and f.first_index <= _bound_lease.first_index
        ),
        _bound_lease.first_index
      )
    order by p.first_index
  loop
    if bytes >= max_bytes and v_page.first_index > _bound_lease.first_index then
      end_index := v_page.first_index;
      exit;
    end if;
    bytes := bytes + v_page.size;
    last_page := v_page.first_index;
  end loop;
end;
$$;
