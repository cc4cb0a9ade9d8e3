-- Ours: ranges that come back, from a worker that lives or from one that does not.

-- Hands items back that were leased but not begun, or not finished: free, and nothing is charged. Answers how many
-- were still held by this worker.
create or replace function pgflow.release_ranges(
  run_id uuid,
  step_slug text,
  worker_id uuid,
  lease_nos int[],
  firsts int[],
  counts int[]
)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_flow_slug text;
  v_taken record;
  v_released int := 0;
begin
  perform pgflow._require_alike(
    'release_ranges', array_dims(firsts), array_dims(lease_nos), array_dims(counts)
  );
  select m.flow_slug into v_flow_slug
  from pgflow.range_maps m
  where m.run_id = release_ranges.run_id and m.step_slug = release_ranges.step_slug;
  if not found then
    return 0;
  end if;
  perform pgflow._require_flow('release_ranges', v_flow_slug);
  -- Who settles what the same lease holds would leave us nothing to find, and whoever leases would wait with us for
  -- it: so the run first.
  perform 1 from pgflow.runs r where r.run_id = release_ranges.run_id for update;
  perform 1
  from pgflow.range_maps m
  where m.run_id = release_ranges.run_id and m.step_slug = release_ranges.step_slug
  for update;

  for v_part in 1 .. coalesce(cardinality(firsts), 0) loop
    select * into v_taken
    from pgflow._take_items(
      release_ranges.run_id, release_ranges.step_slug, release_ranges.worker_id, lease_nos[v_part],
      firsts[v_part], counts[v_part]
    );
    continue when not v_taken.is_held;
    insert into pgflow.ranges (run_id, step_slug, first_index, end_index, lease_no, deaths)
    values (
      release_ranges.run_id, release_ranges.step_slug, firsts[v_part], firsts[v_part] + counts[v_part],
      (v_taken.held).lease_no, (v_taken.held).deaths
    );
    v_released := v_released + counts[v_part];
  end loop;
  if v_released = 0 then
    return 0;
  end if;

  update pgflow.range_maps m
  set is_open = true
  where m.run_id = release_ranges.run_id
    and m.step_slug = release_ranges.step_slug
    and exists (
      select 1
      from pgflow.runs r
      join pgflow.step_states ss on ss.run_id = r.run_id and ss.step_slug = m.step_slug
      where r.run_id = m.run_id and r.status = 'started' and ss.status = 'started'
    );
  perform pg_notify('pgflow_work', v_flow_slug);
  return v_released;
end;
$$;

-- A range that workers died with: the second death in a row cuts it into up to 16 parts, of which a worker gets
-- one at a time; small ones become tasks, which are suspects by the rules for tasks. Caller holds the locks of the
-- run and the map.
create or replace function pgflow._corner_range(flow_slug text, suspect pgflow.item_range)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_items int := suspect.end_index - suspect.first_index;
  v_part int := (v_items + 15) / 16;
begin
  delete from pgflow.ranges g
  where g.run_id = suspect.run_id and g.step_slug = suspect.step_slug and g.first_index = suspect.first_index;
  if v_items <= 16 then
    perform pgflow._make_tasks(
      flow_slug, suspect.run_id, suspect.step_slug,
      array(select i from generate_series(suspect.first_index, suspect.end_index - 1) i order by i),
      null, now(), suspect.deaths, 0
    );
    return;
  end if;
  insert into pgflow.ranges (run_id, step_slug, first_index, end_index, lease_no, deaths)
  select suspect.run_id, suspect.step_slug, i, least(i + v_part, suspect.end_index), suspect.lease_no,
    suspect.deaths
  from generate_series(suspect.first_index, suspect.end_index - 1, v_part) i;
end;
$$;

-- Frees what these workers have leased of a map, and answers how many items. Caller holds the locks of the run, which
-- is_on or over, and the map.
create or replace function pgflow._take_over_map(
  flow_slug text,
  run_id uuid,
  step_slug text,
  is_on boolean,
  worker_ids uuid[],
  died uuid[]
)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_range pgflow.item_range;
  v_freed int := 0;
begin
  for v_range in
    select g.*
    from pgflow.ranges g
    where g.run_id = _take_over_map.run_id
      and g.step_slug = _take_over_map.step_slug
      and g.worker_id = any (worker_ids)
    order by g.first_index
    for update skip locked
  loop
    v_freed := v_freed + v_range.end_index - v_range.first_index;
    if v_range.worker_id = any (died) then
      v_range.deaths := v_range.deaths + 1;
    end if;
    v_range.worker_id := null;
    update pgflow.ranges g
    set worker_id = null, deaths = v_range.deaths
    where g.run_id = v_range.run_id
      and g.step_slug = v_range.step_slug
      and g.first_index = v_range.first_index;
    if v_range.deaths >= 2 and is_on then
      perform pgflow._corner_range(_take_over_map.flow_slug, v_range);
    end if;
  end loop;
  update pgflow.range_maps m
  set is_open = true
  where m.run_id = _take_over_map.run_id
    and m.step_slug = _take_over_map.step_slug
    and is_on
    and exists (
      select 1 from pgflow.step_states ss
      where ss.run_id = m.run_id and ss.step_slug = m.step_slug and ss.status = 'started'
    );
  perform pg_notify('pgflow_work', _take_over_map.flow_slug);
  return v_freed;
end;
$$;

-- Frees what these workers have leased, and answers how many items. Of those that died without a word (died) the
-- deaths are counted. What somebody keeps locked is left, and a run of which something is broken, which is_left
-- tells.
create or replace function pgflow._take_over_ranges(
  worker_ids uuid[],
  died uuid[],
  out freed int,
  out is_left boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_mergejoin = off
set enable_hashjoin = off
as $$
declare
  v_map record;
  v_timeout text := current_setting('lock_timeout');
  v_is_on boolean;
begin
  freed := 0;
  for v_map in
    -- Written so that each run is looked up by its key, whatever the statistics say.
    select r.flow_slug, h.run_id, h.step_slug
    from (
      select distinct g.run_id, g.step_slug from pgflow.ranges g where g.worker_id = any (worker_ids)
    ) h
    cross join lateral (
      select r.flow_slug from pgflow.runs r where r.run_id = h.run_id
      offset 0
    ) r
    order by h.run_id, h.step_slug
  loop
    begin
      perform set_config('lock_timeout', '500ms', true);
      select r.status = 'started' into v_is_on
      from pgflow.runs r
      where r.run_id = v_map.run_id
      for update;
      perform 1
      from pgflow.range_maps m
      where m.run_id = v_map.run_id and m.step_slug = v_map.step_slug
      for update;
      perform set_config('lock_timeout', v_timeout, true);
      freed := freed + pgflow._take_over_map(
        v_map.flow_slug, v_map.run_id, v_map.step_slug, v_is_on, worker_ids, died
      );
    exception
      when lock_not_available then
        null; -- its leases tell that it is left
      when others then
        perform pgflow._leave_run(v_map.run_id, 'taking over from dead workers', sqlstate, sqlerrm);
    end;
  end loop;
  is_left := exists (
    select 1 from pgflow.ranges g where g.worker_id = any (worker_ids)
  );
end;
$$;

-- Frees what workers have leased whose rows somebody has deleted, and that did not write them anew. Answers how
-- many items.
create or replace function pgflow._free_orphaned_ranges()
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_orphans uuid[];
begin
  select array_agg(distinct g.worker_id) into v_orphans
  from pgflow.ranges g
  where g.worker_id is not null
    and g.leased_at < clock_timestamp() - interval '60 seconds'
    and not exists (select 1 from pgflow.workers w where w.worker_id = g.worker_id);
  if v_orphans is null then
    return 0;
  end if;
  return (select t.freed from pgflow._take_over_ranges(v_orphans, '{}') t);
end;
$$;
