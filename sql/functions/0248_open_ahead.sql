-- Ours: a map over a map in ranges that does not wait for all of it (barrier = false): it is started with its
-- parent, and each result page of the parent is at once a free range of it.

-- Starts the maps that do not wait for this one, which has just been started in ranges, and those that do not wait
-- for them. Caller holds the run's lock.
create or replace function pgflow._open_ahead(flow_slug text, run_id uuid, step_slug text, items int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_child record;
  v_started_at timestamptz;
begin
  for v_child in
    select s.step_slug, coalesce(s.opt_start_delay, 0) as start_delay
    from pgflow.deps d
    join pgflow.steps s on s.flow_slug = d.flow_slug and s.step_slug = d.step_slug
    join pgflow.step_policies p on p.flow_slug = s.flow_slug and p.step_slug = s.step_slug
    join pgflow.step_states ss on ss.run_id = _open_ahead.run_id and ss.step_slug = s.step_slug
    where d.flow_slug = _open_ahead.flow_slug
      and d.dep_slug = _open_ahead.step_slug
      and s.step_type = 'map'
      and s.deps_count = 1
      and s.required_input_pattern is null
      and s.forbidden_input_pattern is null
      and p.storage = 'ranges'
      and not p.barrier
      and ss.status = 'created'
      -- Which are those that are to be had from an earlier run is known when they all are there.
      and not exists (
        select 1 from pgflow.reuses u where u.run_id = ss.run_id and u.step_slug = ss.step_slug and u.taken is null
      )
    order by s.step_slug collate "C"
    for update of ss
  loop
    update pgflow.step_states ss
    set status = 'started',
        started_at = greatest(now(), ss.created_at),
        initial_tasks = items,
        remaining_tasks = items
    where ss.run_id = _open_ahead.run_id and ss.step_slug = v_child.step_slug
    returning ss.started_at into v_started_at;
    insert into pgflow.range_maps (
      run_id, step_slug, flow_slug, items, next_index, is_open, not_before, source_step, lease_base
    )
    values (
      _open_ahead.run_id, v_child.step_slug, _open_ahead.flow_slug, items, items, false,
      case when v_child.start_delay > 0 then clock_timestamp() + make_interval(secs => v_child.start_delay) end,
      _open_ahead.step_slug,
      pgflow._lease_base(_open_ahead.run_id, v_child.step_slug)
    );
    perform pgflow._emit_step_event(
      _open_ahead.run_id,
      v_child.step_slug,
      'started',
      jsonb_build_object('started_at', v_started_at, 'remaining_tasks', items, 'remaining_deps', 1)
    );
    perform pgflow._open_ahead(_open_ahead.flow_slug, _open_ahead.run_id, v_child.step_slug, items);
  end loop;
end;
$$;

-- These results of a map are there: what does not wait for all of them may begin. Whoever leases from such a map at
-- this moment is waited for: it would tell that there is nothing. Caller holds the locks of the run and the step.
create or replace function pgflow._pass_on(run_id uuid, step_slug text, firsts int[], counts int[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_child record;
begin
  for v_child in
    select m.step_slug, m.flow_slug, m.lease_base
    from pgflow.range_maps m
    join pgflow.step_states ss on ss.run_id = m.run_id and ss.step_slug = m.step_slug and ss.status = 'started'
    where m.run_id = _pass_on.run_id and m.source_step = _pass_on.step_slug
    order by m.step_slug collate "C"
  loop
    update pgflow.range_maps m
    set is_open = true
    where m.run_id = _pass_on.run_id and m.step_slug = v_child.step_slug;
    insert into pgflow.ranges (run_id, step_slug, first_index, end_index, lease_no)
    select _pass_on.run_id, v_child.step_slug, u.first_index, u.first_index + u.items, v_child.lease_base
    from unnest(firsts, counts) u (first_index, items);
    perform pg_notify('pgflow_work', v_child.flow_slug);
  end loop;
end;
$$;

-- The same for what ended as tasks: the map's exceptions. Does nothing where nobody is ahead.
create or replace function pgflow._pass_on_tasks(run_id uuid, step_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_firsts int[];
  v_counts int[];
begin
  if not exists (
    select 1 from pgflow.range_maps m
    where m.run_id = _pass_on_tasks.run_id and m.source_step = _pass_on_tasks.step_slug
  ) then
    return;
  end if;
  select array_agg(a.first_index), array_agg(a.items) into v_firsts, v_counts
  from pgflow._append_task_results(_pass_on_tasks.run_id, _pass_on_tasks.step_slug) a;
  if v_firsts is not null then
    perform pgflow._pass_on(_pass_on_tasks.run_id, _pass_on_tasks.step_slug, v_firsts, v_counts);
  end if;
end;
$$;

-- A step was skipped: what began ahead of its end has nothing to map over, and is as if it had not begun. Caller
-- holds the run's lock.
create or replace function pgflow._withdraw_ahead(run_id uuid, step_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_child text;
begin
  for v_child in
    select m.step_slug
    from pgflow.range_maps m
    join pgflow.step_states ss on ss.run_id = m.run_id and ss.step_slug = m.step_slug and ss.status = 'started'
    where m.run_id = _withdraw_ahead.run_id and m.source_step = _withdraw_ahead.step_slug
    order by m.step_slug collate "C"
    for update of ss
  loop
    perform pgflow._withdraw_ahead(_withdraw_ahead.run_id, v_child);
    perform pgflow._end_open_tasks(_withdraw_ahead.run_id, 'skipped', array[v_child]);
    delete from pgflow.ranges g where g.run_id = _withdraw_ahead.run_id and g.step_slug = v_child;
    delete from pgflow.range_maps m where m.run_id = _withdraw_ahead.run_id and m.step_slug = v_child;
    delete from pgflow.pages p where p.run_id = _withdraw_ahead.run_id and p.step_slug = v_child;
    delete from pgflow.step_tasks t where t.run_id = _withdraw_ahead.run_id and t.step_slug = v_child;
    delete from pgflow.step_counts c where c.run_id = _withdraw_ahead.run_id and c.step_slug = v_child;
    update pgflow.step_states ss
    set status = 'created',
        started_at = null,
        initial_tasks = null,
        remaining_tasks = null,
        failed_tasks = 0
    where ss.run_id = _withdraw_ahead.run_id and ss.step_slug = v_child;
  end loop;
end;
$$;
