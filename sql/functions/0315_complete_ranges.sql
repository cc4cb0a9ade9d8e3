-- Ours: results of items in ranges.

-- So many items from first_index on leave the lease that holds them. Answers what held them, or nothing where they
-- are not that worker's or lease's any more. Caller holds the run's lock, as has everybody who changes a lease:
-- who only leases touches none.
create or replace function pgflow._take_items(
  run_id uuid,
  step_slug text,
  worker_id uuid,
  lease_no int,
  first_index int,
  items int,
  out held pgflow.item_range,
  out is_held boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_end bigint := first_index::bigint + items;
begin
  select g.* into held
  from pgflow.ranges g
  where g.run_id = _take_items.run_id
    and g.step_slug = _take_items.step_slug
    and g.first_index <= _take_items.first_index
  order by g.first_index desc
  limit 1;
  is_held := coalesce(
    items > 0
      and held.worker_id = _take_items.worker_id
      and held.lease_no = _take_items.lease_no
      and held.end_index >= v_end,
    false
  );
  if not is_held then
    return;
  end if;

  if held.first_index < _take_items.first_index then
    update pgflow.ranges g
    set end_index = _take_items.first_index
    where g.run_id = held.run_id and g.step_slug = held.step_slug and g.first_index = held.first_index;
  else
    delete from pgflow.ranges g
    where g.run_id = held.run_id and g.step_slug = held.step_slug and g.first_index = held.first_index;
  end if;
  if held.end_index > v_end then
    insert into pgflow.ranges (run_id, step_slug, first_index, end_index, worker_id, lease_no, deaths, leased_at)
    values (
      held.run_id, held.step_slug, v_end, held.end_index, held.worker_id, held.lease_no, held.deaths,
      held.leased_at
    );
  end if;
end;
$$;

-- Raises unless all these shapes (array_dims) are that of one array of one dimension.
create or replace function pgflow._require_alike(function_name text, variadic shapes text[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if shapes[1] !~ '^\[1:[0-9]+\]$' or exists (select 1 from unnest(shapes) s where s is distinct from shapes[1]) then
    raise exception 'The arrays that % is given are not of one dimension and one length', function_name
      using errcode = 'invalid_parameter_value';
  end if;
end;
$$;

-- Records outputs of items of one map: part k holds those of counts[k] items from firsts[k] on, in an array, which
-- lease lease_nos[k] of the worker holds. Answers how many items were accepted, and the first items of parts that
-- were not: they are not that lease's any more.
create or replace function pgflow.complete_ranges(
  run_id uuid,
  step_slug text,
  worker_id uuid,
  lease_nos int[],
  firsts int[],
  counts int[],
  outputs jsonb[]
)
returns pgflow.settled_tasks
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_map record;
  v_taken record;
  v_done int := 0;
  v_firsts int[] := '{}';
  v_counts int[] := '{}';
  v_rejected int[] := '{}';
begin
  perform pgflow._require_alike(
    'complete_ranges', array_dims(firsts), array_dims(lease_nos), array_dims(counts), array_dims(outputs)
  );
  select * into v_map
  from pgflow._lock_to_settle('complete_ranges', complete_ranges.run_id, complete_ranges.step_slug);
  if v_map.run_status is distinct from 'started' or v_map.step_status is distinct from 'started' then
    return row(0, firsts, v_map.step_status, v_map.run_status)::pgflow.settled_tasks;
  end if;

  for v_part in 1 .. coalesce(cardinality(firsts), 0) loop
    select * into v_taken
    from pgflow._take_items(
      complete_ranges.run_id, complete_ranges.step_slug, complete_ranges.worker_id, lease_nos[v_part],
      firsts[v_part], counts[v_part]
    );
    if not v_taken.is_held then
      v_rejected := v_rejected || firsts[v_part];
      continue;
    end if;
    if jsonb_typeof(outputs[v_part]) is distinct from 'array'
      or jsonb_array_length(outputs[v_part]) <> counts[v_part]
    then
      raise exception 'The outputs of items % to % of step "%" are not an array of % values',
        firsts[v_part], firsts[v_part] + counts[v_part] - 1, complete_ranges.step_slug, counts[v_part]
        using errcode = 'invalid_parameter_value';
    end if;
    insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body, worker_id, leased_at)
    values (
      complete_ranges.run_id, complete_ranges.step_slug, true, firsts[v_part], counts[v_part], outputs[v_part],
      complete_ranges.worker_id, (v_taken.held).leased_at
    );
    v_done := v_done + counts[v_part];
    v_firsts := v_firsts || firsts[v_part];
    v_counts := v_counts || counts[v_part];
  end loop;

  if v_done > 0 then
    if exists (
      select 1 from pgflow.deps d where d.flow_slug = v_map.flow_slug and d.dep_slug = complete_ranges.step_slug
    ) then
      perform pgflow._pass_on(complete_ranges.run_id, complete_ranges.step_slug, v_firsts, v_counts);
    end if;
    perform pgflow._count_done(
      v_map.flow_slug, complete_ranges.run_id, complete_ranges.step_slug, v_done, null
    );
    if exists (select 1 from pgflow.limits l where l.flow_slug = v_map.flow_slug and l.at_once is not null) then
      perform pg_notify('pgflow_work', v_map.flow_slug); -- there is room for others
    end if;
  end if;
  return (
    select row(v_done, v_rejected, ss.status, r.status)::pgflow.settled_tasks
    from pgflow.runs r
    cross join lateral pgflow._latest_state(r.run_id, complete_ranges.step_slug) ss
    where r.run_id = complete_ranges.run_id
  );
end;
$$;
