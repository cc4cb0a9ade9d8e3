-- Ours: runs whose items come page by page, from a file or a query, and are never one document. Nothing of a load
-- is seen by anybody until its run is started, at once and whole.

-- The step whose result pages are the elements of a map over this parent, or, where that is null, over the run's
-- input: '' where they were loaded. NULL: they are in no pages.
create or replace function pgflow._source_in_pages(run_id uuid, parent_slug text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when parent_slug is not null then
      case when pgflow._is_in_ranges(_source_in_pages.run_id, parent_slug) then parent_slug end
    when exists (
      select 1 from pgflow.loads l where l.run_id = _source_in_pages.run_id and l.is_started
    ) then ''
  end;
$$;

-- Drops loads that were not started, with their pages.
create or replace function pgflow._drop_loads(run_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  delete from pgflow.pages p
  using pgflow.loads l
  where l.run_id = any (run_ids) and not l.is_started and p.run_id = l.run_id and p.step_slug = '';
  delete from pgflow.loads l where l.run_id = any (run_ids) and not l.is_started;
end;
$$;

-- Begins a load of items for a run to come, and answers the run's id. Loads that nobody has touched for a day are
-- dropped at this occasion.
create or replace function pgflow.open_load(flow_slug text, run_id uuid default null)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run_id uuid := coalesce(open_load.run_id, gen_random_uuid());
begin
  perform pgflow._require_flow('open_load', open_load.flow_slug);
  if not exists (
    select 1 from pgflow.steps s
    where s.flow_slug = open_load.flow_slug and s.step_type = 'map' and s.deps_count = 0
  ) then
    raise exception 'Flow "%" has no map over its input: there is nothing to load items for', open_load.flow_slug
      using errcode = 'PF006', hint = 'Give its input as one value: pgflow.start_flow(flow_slug, input)';
  end if;
  if exists (select 1 from pgflow.runs r where r.run_id = v_run_id) then
    raise exception 'There is a run % already', v_run_id using errcode = 'unique_violation';
  end if;
  if exists (select 1 from pgflow.leavings l where l.run_id = v_run_id) then
    raise exception 'Run % was pruned, and not everything of it is gone yet', v_run_id
      using errcode = 'unique_violation', hint = 'Load with another id, or prune on.';
  end if;
  perform pgflow._drop_loads(array(
    select l.run_id from pgflow.loads l
    where not l.is_started and l.touched_at < clock_timestamp() - interval '1 day'
    order by l.run_id
    limit 10
    for update skip locked
  ));
  insert into pgflow.loads (run_id, flow_slug) values (v_run_id, open_load.flow_slug);
  return v_run_id;
end;
$$;

-- The load with its lock, while it may still be changed.
create or replace function pgflow._lock_load(function_name text, run_id uuid, out flow_slug text, out items int)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  select l.flow_slug, l.items into _lock_load.flow_slug, _lock_load.items
  from pgflow.loads l
  where l.run_id = _lock_load.run_id and not l.is_started and l.touched_at > '-infinity'
  for update;
  if not found then
    raise exception 'There is no load % that is under way', _lock_load.run_id
      using errcode = 'PF003', hint = 'It was started or dropped, or nobody touched it for a day: load again.';
  end if;
  perform pgflow._require_flow(function_name, _lock_load.flow_slug);
end;
$$;

-- Adds pages: bodies[k] is an array of the counts[k] items from firsts[k] on. Answers how many items there are. Pages
-- that are there already may come again, if they are the same: who lost the answer does not know.
create or replace function pgflow.add_pages(run_id uuid, firsts int[], counts int[], bodies jsonb[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_items int;
  v_pages int;
  v_new int;
begin
  perform pgflow._lock_load('add_pages', add_pages.run_id);
  if exists (
    select 1
    from unnest(firsts, counts, bodies) u (first_index, items, body)
    where coalesce(u.first_index < 0 or u.items < 1 or u.first_index > 2147483647 - u.items, true)
      or jsonb_typeof(u.body) is distinct from 'array'
      or jsonb_array_length(u.body) <> u.items
  ) then
    raise exception 'A page is not an array of as many items as it is said to have'
      using errcode = 'invalid_parameter_value';
  end if;
  perform pgflow._require_text(u.first_index, u.items, u.body)
  from unnest(firsts, counts, bodies) u (first_index, items, body);
  with added as (
    insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)
    select add_pages.run_id, '', true, u.first_index, u.items, u.body
    from unnest(firsts, counts, bodies) u (first_index, items, body)
    on conflict on constraint pages_pkey do nothing
    returning items
  )
  select count(*), coalesce(sum(a.items), 0) into v_pages, v_new from added a;
  if v_pages < cardinality(firsts) and exists (
    select 1
    from unnest(firsts, counts, bodies) u (first_index, items, body)
    join pgflow.pages p
      on p.run_id = add_pages.run_id and p.step_slug = '' and p.is_result and p.first_index = u.first_index
    where p.items <> u.items or p.body <> u.body
  ) then
    raise exception 'Load % has other items in the place of these', add_pages.run_id
      using errcode = 'unique_violation', hint = 'Somebody else loads with this id, too.';
  end if;
  update pgflow.loads l
  set items = l.items + v_new,
      touched_at = clock_timestamp()
  where l.run_id = add_pages.run_id
  returning l.items into v_items;
  return v_items;
end;
$$;

-- Gives a load up: nothing of it is left.
create or replace function pgflow.drop_load(run_id uuid)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._lock_load('drop_load', drop_load.run_id);
  perform pgflow._drop_loads(array[drop_load.run_id]);
end;
$$;

-- Starts the run of a load: its maps without a parent have the loaded items, and params is the run's input, an
-- object, for all other steps; NULL: the items are the input, which their array is then, to whoever asks for it, but
-- for conditions and steps of one task without a parent. Answers the run's id.
create or replace function pgflow.start_loaded_run(run_id uuid, params jsonb default '{}', priority int default 0)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_load record;
  v_gap int;
begin
  select * into v_load from pgflow._lock_load('start_loaded_run', start_loaded_run.run_id);
  if jsonb_typeof(params) <> 'object' then
    raise exception 'The parameters of a run with loaded items are an object, not %', jsonb_typeof(params)
      using errcode = 'invalid_parameter_value';
  end if;
  -- Who has opened it in an old snapshot may have lost pages to what was left of an earlier run: none may be missing.
  select coalesce(
      min(p.first_index) filter (where p.first_index <> p.expected),
      case when coalesce(sum(p.items), 0) <> v_load.items then v_load.items end
    )
  into v_gap
  from (
    select p.first_index, p.items,
      coalesce(lag(p.first_index + p.items) over (order by p.first_index), 0) as expected
    from pgflow.pages p
    where p.run_id = start_loaded_run.run_id and p.step_slug = '' and p.is_result
  ) p;
  if v_gap is not null then
    raise exception 'The pages of load % do not follow one another before item %', start_loaded_run.run_id, v_gap
      using errcode = 'invalid_parameter_value';
  end if;

  update pgflow.loads l
  set is_started = true, is_input = params is null
  where l.run_id = start_loaded_run.run_id;
  perform pgflow._begin_run(v_load.flow_slug, start_loaded_run.run_id, coalesce(params, '{}'), v_load.items);
  if priority <> 0 then
    insert into pgflow.run_priorities (run_id, priority) values (start_loaded_run.run_id, start_loaded_run.priority);
  end if;
  return start_loaded_run.run_id;
end;
$$;
